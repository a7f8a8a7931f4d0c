/**
 * The first file system of a kernel: an archive in the format "newc" of cpio. Numbers are eight hexadecimal digits.
 *
 * Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
 *
 *     offset | size | field                     offset | size | field
 *     0      | 6    | "070701"                  62     | 32   | device numbers
 *     6      | 8    | inode                     94     | 8    | length of the name, with its zero byte
 *     14     | 8    | mode                      102    | 8    | checksum, 0
 *     22     | 32   | links, owner, time        110    | -    | name, zeros up to a multiple of 4
 *     54     | 8    | length of the file        -      | -    | file, zeros up to a multiple of 4
 */
const REGULAR_EXECUTABLE = 0o100755;
const LAST_NAME = 'TRAILER!!!';

/** @param files programs, by name */
export function initramfs(files: Readonly<Record<string, Buffer>>): Buffer {
  const entries = [...Object.entries(files), [LAST_NAME, Buffer.alloc(0)] as const];
  return Buffer.concat(entries.map(([name, content], i) => entry(i + 1, name, content)));
}

function entry(inode: number, name: string, content: Buffer): Buffer {
  const device = [0, 0, 0, 0];
  const numbers = [inode, REGULAR_EXECUTABLE, 1, 0, 0, 0, content.length, ...device, name.length + 1, 0];
  const fields = numbers.map((number) => number.toString(16).padStart(8, '0'));
  return Buffer.concat([padded(Buffer.from(`070701${fields.join('')}${name}\0`)), padded(content)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
