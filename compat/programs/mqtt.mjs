import { createServer } from 'node:net';
import { Aedes } from 'aedes';
import mqtt from 'mqtt';
import { answerTo } from '../payload.mjs';

export async function serve() {
  const broker = await Aedes.createBroker();
  return createServer({ noDelay: true }, broker.handle).listen(0, '127.0.0.1');
}

/** Two clients of the broker: one asks, one answers. */
export async function connect(port) {
  const [asker, answerer] = await Promise.all([1, 2].map(() => mqtt.connectAsync(`mqtt://127.0.0.1:${port}`)));
  await answerer.subscribeAsync('question/+', { qos: 1 });
  answerer.on('message', (topic, text) => {
    answerer.publish(topic.replace('question', 'answer'), answerTo(text.toString()), { qos: 1 });
  });
  const waiting = new Map();
  await asker.subscribeAsync('answer/+', { qos: 1 });
  asker.on('message', (topic, text) => waiting.get(topic)(text.toString()));
  let asked = 0;
  return {
    request: (text) =>
      new Promise((resolve) => {
        const id = asked++;
        waiting.set(`answer/${id}`, resolve);
        asker.publish(`question/${id}`, text, { qos: 1 });
      }),
    close: () => Promise.all([asker.endAsync(), answerer.endAsync()]),
  };
}
