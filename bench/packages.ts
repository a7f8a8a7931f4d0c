/** Packages that only those have who develop this one: those of bench/packages/. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../bench/packages/package.json', import.meta.url));

/** Throws why not, in words. */
export function load<T>(name: string): T {
  try {
    return require(name) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND')
      throw new Error(`the package ${name} is not installed`);
    throw new Error(`the package ${name} cannot be loaded: ${(error as Error).message}`);
  }
}

/** Null = it is not installed. */
export function versionOf(name: string): string | null {
  try {
    const [folder = ''] = new RegExp(`^.*/node_modules/${name}/`).exec(require.resolve(name)) ?? [];
    return JSON.parse(readFileSync(`${folder}package.json`, 'utf8')).version;
  } catch {
    return null;
  }
}
