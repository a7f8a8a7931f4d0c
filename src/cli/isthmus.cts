#!/usr/bin/env node
// The first thing that runs, before the event loop does: messages on an IPC channel belong to the command of `isthmus run`.
const symbol = Object.getOwnPropertySymbols(process).find(({ description }) => description === 'kChannelHandle');
if (symbol !== undefined) (Reflect.get(process, symbol) as { readStop?(): void } | null)?.readStop?.();
void import('./main.js');
