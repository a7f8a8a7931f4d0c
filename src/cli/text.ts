/** Text of others for a terminal: what moves the cursor, hides, or turns the direction of writing is shown as an escape. */

/** Control and format characters, separators of lines, halves of pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;

function escapesOf(characters: string): string {
  return Array.from(
    { length: characters.length },
    (_, i) => `\\u${characters.charCodeAt(i).toString(16).padStart(4, '0')}`,
  ).join('');
}

/** @param maxLength what is longer is cut */
export function printable(text: string, maxLength = 1000): string {
  const short = text.length > maxLength ? `${text.slice(0, maxLength)}...` : text;
  return short.replace(UNPRINTABLE, escapesOf);
}

/** The same JSON, with such characters escaped as JSON has it. */
export function printableJson(value: unknown): string {
  return JSON.stringify(value, null, 2)
    .split('\n')
    .map((line) => line.replace(UNPRINTABLE, escapesOf))
    .join('\n');
}
