/** The preload in NODE_OPTIONS. */
import { fileURLToPath } from 'node:url';

/** `--require`: for `--import` a program that has no ES modules would load all that Node.js needs for them. */
export function preloadOption(registerUrl: string): string {
  return `--require=${quoted(registerUrl)}`;
}

/** Whether a program with these options loads it, either way. */
export function loadsPreload(nodeOptions: string, registerUrl: string): boolean {
  return [registerUrl, quoted(registerUrl)].some((text) => nodeOptions.includes(text));
}

/** Between quotes, `\` and `"` are escaped as in JSON. */
function quoted(registerUrl: string): string {
  const path = fileURLToPath(registerUrl);
  return /[\s"\\]/.test(path) ? JSON.stringify(path) : path;
}
