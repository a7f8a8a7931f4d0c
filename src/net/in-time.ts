/** Has the program wait for it, also when nothing else keeps it running. */
export async function keepingAlive<T>(done: Promise<T>): Promise<T> {
  const alive = setInterval(() => {}, 1000);
  try {
    return await done;
  } finally {
    clearInterval(alive);
  }
}

/** Settled when that is done, or after the time. Never rejects, unless it does. */
export async function inTime(done: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  try {
    await Promise.race([done, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
