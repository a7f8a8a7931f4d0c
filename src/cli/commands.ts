import type { Command } from './command.ts';

/** All commands, each loaded when it is called. */
export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./run.ts')).run,
  ss: async () => (await import('./ss.ts')).ss,
  stats: async () => (await import('./stats.ts')).stats,
  linkgroup: async () => (await import('./groups.ts')).linkgroup,
  device: async () => (await import('./groups.ts')).device,
  chk: async () => (await import('./chk.ts')).chk,
  doctor: async () => (await import('./doctor.ts')).doctor,
  clc: async () => (await import('./clc.ts')).clc,
  fabric: async () => (await import('./fabric.ts')).fabric,
  ueid: async () => (await import('./eids.ts')).ueid,
  seid: async () => (await import('./eids.ts')).seid,
  demo: async () => (await import('./demo.ts')).demo,
  bench: async () => (await import('./bench.ts')).bench,
  completion: async () => (await import('./completion.ts')).completion,
};

/** What `isthmus --help` says. */
export async function overview(): Promise<string> {
  const lines = await Promise.all(
    Object.entries(COMMANDS).map(async ([command, load]) => `  ${command.padEnd(10)} ${(await load()).summary}`),
  );
  return `Usage: isthmus COMMAND [options]

Connections of Node.js programs inside one host move from TCP to shared memory.

${lines.join('\n')}

isthmus COMMAND --help tells more. isthmus --version prints the version.
Exit codes: 0 done, 1 failed (the reason stands on stderr), 2 called wrongly; run ends as its command does.
`;
}
