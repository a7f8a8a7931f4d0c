/** The other end of a line: a child process, or a thread. It answers after each so many bytes. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { ipcLine, type Line, type LineKind, pipeLine, portLine, type Received, zeromqLine } from './lines.ts';

export interface Answer {
  readonly kind: LineKind;
  /** For zeromq. */
  readonly path: string | null;
  readonly every: number;
  readonly bytes: number;
}

const answer: Answer = isMainThread ? JSON.parse(process.argv[2] ?? '') : workerData;
let missing = answer.every;
const line = await openLine(answer, (bytes) => {
  missing -= bytes;
  for (; missing <= 0; missing += answer.every) line.send(answer.bytes);
});

async function openLine({ kind, path }: Answer, to: Received): Promise<Line> {
  if (isMainThread) {
    process.on('disconnect', () => process.exit());
    process.stdin.on('end', () => process.exit()).on('error', () => process.exit());
  }
  switch (kind) {
    case 'ipc-json':
    case 'ipc-advanced':
      return ipcLine(process, kind, to);
    case 'pipes':
      return pipeLine(process.stdin, process.stdout, to);
    case 'zeromq':
      process.stdin.resume();
      return await zeromqLine(path ?? '', 'connect', to);
    case 'port-copy':
    case 'port-transfer':
      if (parentPort === null) throw new Error('a port is between threads');
      return portLine(parentPort, kind, to);
    default:
      throw new Error(`there is no ${kind satisfies never}`);
  }
}
