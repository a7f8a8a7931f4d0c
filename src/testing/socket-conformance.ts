/**
 * What a program can see of a connected socket, as scenarios. Each gives a log, and any carrier of a connection's bytes gives the same log as
 * plain TCP does on this version of Node.js. One written elsewhere can be held against it too:
 *
 *     socketConformance('my carrier', async (options) => ({ client, server, close }));
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { closing } from './sockets/closing.ts';
import { contexts } from './sockets/contexts.ts';
import { http } from './sockets/http.ts';
import { type MakeSocketPair, Scene, type SocketScenario, socketPair } from './sockets/scene.ts';
import { standing } from './sockets/standing.ts';
import { reading, writing } from './sockets/streams.ts';

export {
  type MakeSocketPair,
  Scene,
  type SocketMaker,
  type SocketPair,
  type SocketPairOptions,
  type SocketScenario,
  socketPair,
} from './sockets/scene.ts';

export const socketScenarios = { closing, reading, writing, standing, contexts, http };

export interface SocketDeviation {
  /** By reference: `socketScenarios.closing['both end at once']`. */
  readonly scenario: SocketScenario;
  /** Why this carrier shows something else than TCP. It is asserted to still do so. */
  readonly reason: string;
}

export interface SocketConformanceOptions {
  readonly deviations?: readonly SocketDeviation[];
  /** How many scenarios run at a time; most of the time they wait. */
  readonly concurrency?: number;
}

/** Longer than anything is waited for in one: that says what it was. */
const TEST_TIMEOUT_MS = 120_000;
const DEFAULT_CONCURRENCY = 8;

/** Declares the suite for one carrier with node:test. */
export function socketConformance(
  name: string,
  makePair: MakeSocketPair,
  { deviations = [], concurrency = DEFAULT_CONCURRENCY }: SocketConformanceOptions = {},
): void {
  describe(name, { concurrency }, () => {
    for (const { section, title, scenario } of allSocketScenarios()) {
      const deviation = deviations.find((one) => one.scenario === scenario);
      const what = deviation === undefined ? title : `deviates from '${title}' because ${deviation.reason}`;
      test(`${section}: ${what}`, { timeout: TEST_TIMEOUT_MS }, async () => {
        const expected = await onPlainTcp(scenario);
        const seen = await runSocketScenario(scenario, makePair);
        if (deviation === undefined) assert.deepEqual(seen, expected);
        else assert.notDeepEqual(seen, expected, 'it no longer deviates');
      });
    }
  });
}

/** What plain TCP shows; once for all carriers. */
function onPlainTcp(scenario: SocketScenario): Promise<unknown> {
  const known = plainLogs.get(scenario) ?? runSocketScenario(scenario, socketPair);
  plainLogs.set(scenario, known);
  return known;
}
const plainLogs = new Map<SocketScenario, Promise<unknown>>();

export function allSocketScenarios(): { section: string; title: string; scenario: SocketScenario }[] {
  return Object.entries(socketScenarios).flatMap(([section, scenarios]) =>
    Object.entries(scenarios).map(([title, scenario]) => ({ section, title, scenario })),
  );
}

/** What a scenario says of pairs so made, which are closed afterwards. */
export async function runSocketScenario(scenario: SocketScenario, makePair: MakeSocketPair): Promise<unknown> {
  const scene = new Scene(makePair);
  try {
    return await scenario(scene);
  } finally {
    await scene.close();
  }
}
