import rhea from 'rhea';
import { answerTo } from '../payload.mjs';

/** AMQP 1.0: the server answers each message where its sender said. */
export function serve() {
  const container = rhea.create_container();
  const senders = new Map();
  container.on('sender_open', ({ sender }) => {
    const address = sender.source.dynamic ? `answers-${senders.size}` : sender.source.address;
    sender.set_source({ address });
    senders.set(address, sender);
  });
  container.on('receiver_open', ({ receiver }) => receiver.set_target(receiver.target));
  container.on('message', ({ message }) => {
    const { reply_to: to, correlation_id } = message;
    senders.get(to).send({ to, correlation_id, body: answerTo(message.body) });
  });
  return container.listen({ port: 0, host: '127.0.0.1' });
}

export function connect(port) {
  const connection = rhea.create_container().connect({ host: '127.0.0.1', port, reconnect: false });
  const receiver = connection.open_receiver({ source: { dynamic: true } });
  const waiting = new Map();
  connection.on('message', ({ message }) => waiting.get(message.correlation_id)(message.body));
  return new Promise((resolve) => {
    receiver.on('receiver_open', () => {
      const sender = connection.open_sender('questions');
      let asked = 0;
      const request = (body) =>
        new Promise((answered) => {
          const correlation_id = asked++;
          waiting.set(correlation_id, answered);
          sender.send({ reply_to: receiver.source.address, correlation_id, body });
        });
      sender.once('sendable', () => resolve({ request, close: () => connection.close() }));
    });
  });
}
