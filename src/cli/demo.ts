import { type Command, fail } from './command.ts';

export const demo: Command = {
  summary: '',
  help: '',
  async main() {
    return fail('not built yet');
  },
};
