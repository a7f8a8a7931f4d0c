import { type Command, fail } from './command.ts';

export const bench: Command = {
  summary: '',
  help: '',
  async main() {
    return fail('not built yet');
  },
};
