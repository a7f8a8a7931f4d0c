/** Has the program wait for it, also when nothing else keeps it running. */
export async function keepingAlive<T>(done: Promise<T>): Promise<T> {
  const alive = setInterval(() => {}, 1000);
  try {
    return await done;
  } finally {
    clearInterval(alive);
  }
}

/** Settled when that is done (true), or after the time (false). Never rejects, unless it does. */
export async function inTime(done: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, false);
  });
  try {
    return await Promise.race([done.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}
