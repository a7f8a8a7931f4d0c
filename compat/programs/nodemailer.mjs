import { text } from 'node:stream/consumers';
import nodemailer from 'nodemailer';
import { SMTPServer } from 'smtp-server';
import { answerTo } from '../payload.mjs';

export function serve() {
  const server = new SMTPServer({
    disabledCommands: ['STARTTLS'],
    authOptional: true,
    onData(stream, _session, callback) {
      text(stream).then((mail) => callback(null, answerTo(mail).slice(0, 40)), callback);
    },
  });
  return server.listen(0, '127.0.0.1');
}

export function connect(port) {
  const transport = nodemailer.createTransport({
    host: '127.0.0.1',
    port,
    pool: true,
    maxConnections: 4,
    maxMessages: Infinity,
    ignoreTLS: true,
  });
  return {
    async request(body, i) {
      const mail = { from: 'a@example.org', to: 'b@example.org', subject: `${i}`, text: body };
      const date = new Date(0);
      return (await transport.sendMail({ ...mail, date, messageId: `<${i}@example.org>` })).response;
    },
    close: () => transport.close(),
  };
}
