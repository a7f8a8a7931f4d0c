// Keeps what documents say about tables in the code true: writes every region of a document that begins with
// `<!-- generated: NAME -->` anew from the built code (npm run docs). With --check it writes nothing, names the documents that are
// out of date, and fails if there is one.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

const root = new URL('../', import.meta.url);
const built = (path) => import(new URL(`dist/src/${path}`, root).href);
const source = (path) => readFileSync(new URL(path, root), 'utf8');

const { MESSAGES, REFUSALS, DECLINES, EID_CHANGES, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX } =
  await built('fabric/protocol.js');
const { DEFAULT_LIMITS } = await built('fabric/limits.js');
const { SENDER } = await built('smc/handover/sender.js');
const { RECEIVER } = await built('smc/handover/receiver.js');
const { CLOSE, STATE_NAMES } = await built('smc/states.js');
const { REASONS } = await built('smc/reasons.js');
const { SMC_CLC_DECL, declineReason } = await built('smc/clc/decline-codes.js');
const { HostDevice } = await built('devices/host/index.js');
const { LoopbackFabric } = await built('devices/loopback/index.js');
const { randomGid, virtualChid } = await built('ism/index.js');

// --- Putting text together ---

const cell = (text) => String(text).replaceAll('|', '\\|').replaceAll('\n', ' ');
const code = (text) => `\`${text}\``;
const hex = (value) => `0x${value.toString(16).padStart(8, '0')}`;
const table = (head, rows) =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.map(cell).join(' | ')} |`).join('\n');

/** What the comment in front of each literal of a union, or each member of an interface or object, says. */
function sentences(file, name) {
  const text = source(file);
  const from = text.slice(text.search(new RegExp(`^export (type|const|interface) ${name}\\b`, 'm')));
  const body = from.slice(0, from.search(from.startsWith('export type') ? /;\n/ : /\n\}/));
  const entry = /(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*)?(?:\| '(\w+)'|(?:readonly )?(\w+): )/g;
  return new Map([...body.matchAll(entry)].map(([, doc, literal, member]) => [literal ?? member, plain(doc)]));
}

const plain = (comment) => (comment ?? '').replace(/\s*\n\s*\*\s*/g, ' ').trim();

/** The value of `const NAME = value;`, as it stands in a file. */
function constant(file, name) {
  const match = new RegExp(`^(?:export )?const ${name} = ([^;]+);`, 'm').exec(source(file));
  if (match === null) throw new Error(`${file} has no constant ${name}`);
  return match[1].trim();
}

/** The indented tables of the comment at the head of a file, as they stand there. */
function headOf(file) {
  const [, comment] = /^\/\*\*([\s\S]*?)\*\//.exec(source(file));
  const lines = comment.split('\n').map((line) => line.replace(/^ \* ?/, ''));
  const inside = lines.filter((line) => line.startsWith('    ')).map((line) => line.slice(4));
  return `\`\`\`\n${inside.join('\n')}\n\`\`\``;
}

// --- State machines ---

const MACHINES = {
  sender: [SENDER, 'src/smc/handover/sender.ts', 'SenderState', 'SenderEvent'],
  receiver: [RECEIVER, 'src/smc/handover/receiver.ts', 'ReceiverState', 'ReceiverEvent'],
  close: [CLOSE, 'src/smc/states.ts', 'CloseState', 'CloseEvent'],
};

/** Every change of state, once: [from, to, 'event / action']. */
function changes(machine) {
  return Object.entries(machine).flatMap(([from, events]) => {
    const to = new Map();
    for (const [event, row] of Object.entries(events)) {
      if (row.next === undefined || row.next === from) continue;
      const label = [event, ...row.actions].join(' / ');
      to.set(row.next, [...(to.get(row.next) ?? []), label]);
    }
    return [...to].map(([next, labels]) => [from, next, labels.join(', ')]);
  });
}

function arrows(name) {
  const rows = changes(MACHINES[name][0]);
  const width = Math.max(...rows.map(([from]) => from.length));
  const middle = Math.max(...rows.map(([, , label]) => label.length));
  const lines = rows.map(([from, to, label], i) => {
    const shown = i > 0 && rows[i - 1][0] === from ? '' : from;
    return `${shown.padEnd(width)} --( ${label} )${'-'.repeat(middle - label.length)}--> ${to}`;
  });
  return `\`\`\`\n${lines.join('\n')}\n\`\`\``;
}

function diagram(name) {
  const lines = changes(MACHINES[name][0]).map(([from, to, label]) => `    ${from} --> ${to}: ${label}`);
  return `\`\`\`mermaid\nstateDiagram-v2\n    [*] --> ${Object.keys(MACHINES[name][0])[0]}\n${lines.join('\n')}\n\`\`\``;
}

function machine(name) {
  const [rows, file, states, events] = MACHINES[name];
  const about = sentences(file, states);
  const eventRows = [...sentences(file, events)].filter(([event]) => event in Object.values(rows)[0]);
  const parts = [
    diagram(name),
    table(
      ['event', 'meaning'],
      eventRows.map(([event, text]) => [code(event), text]),
    ),
  ];
  for (const [state, transitions] of Object.entries(rows)) {
    const shown = name === 'close' && STATE_NAMES[state] !== state ? ` (${STATE_NAMES[state]})` : '';
    const sentence = about.get(state);
    parts.push(`#### ${state}${shown}`);
    if (sentence) parts.push(sentence);
    const body = Object.entries(transitions).map(([event, row]) =>
      row.next === undefined
        ? [code(event), 'impossible', '', row.impossible]
        : [code(event), row.next === state ? 'stays' : code(row.next), row.actions.map(code).join(', '), row.why],
    );
    parts.push(table(['event', 'next', 'actions', 'why'], body));
  }
  return parts.join('\n\n');
}

// --- Protocols ---

function fabricMessages(from) {
  return Object.entries(MESSAGES)
    .filter(([, message]) => message.from === from)
    .map(([name, { code: number, since = 1, descriptors, fields, text }]) => {
      const rows = Object.entries(fields).map(([field, type]) => [code(field), code(type)]);
      const what = descriptors === 1 ? '1 descriptor' : `${descriptors === 0 ? 'no' : descriptors} descriptors`;
      return [
        `#### ${name}`,
        `Code ${number}, from the ${from}, ${what}${since === 1 ? '' : `, since version ${since}`}.`,
        text,
        rows.length === 0 ? 'No fields.' : table(['field', 'type'], rows),
      ].join('\n\n');
    })
    .join('\n\n');
}

const numbered = (texts) => table(['number', 'meaning'], Object.entries(texts));

function limits() {
  const about = sentences('src/fabric/limits.ts', 'FabricLimits');
  return table(
    ['limit', 'default', 'meaning'],
    Object.entries(DEFAULT_LIMITS).map(([name, value]) => [code(name), value, about.get(name) ?? '']),
  );
}

function constants(rows) {
  return table(
    ['what', 'value', 'where'],
    rows.map(([what, file, name]) => [what, code(constant(file, name)), `${code(name)}, ${file}`]),
  );
}

const times = () =>
  constants([
    ['the fabric: from connecting to HELLO', 'src/fabric/server.ts', 'HELLO_TIMEOUT_MS'],
    ['the fabric: from SHOW to SHOWN or GONE', 'src/fabric/core.ts', 'SHOW_TIMEOUT_MS'],
    ['the fabric: without a partition, before it ends', 'src/fabric/run.ts', 'DEFAULT_IDLE_MS'],
    ['Isthmus: trying to find and join a fabric', 'src/fabric/client.ts', 'CONNECT_TIMEOUT_MS'],
    ['Isthmus: from HELLO to WELCOME', 'src/fabric/client.ts', 'WELCOME_TIMEOUT_MS'],
    ['Isthmus: from PING to PONG', 'src/fabric/client.ts', 'SILENCE_MS'],
  ]);

const pairLimits = () =>
  constants([
    ['version in OPEN', 'src/devices/host/messages.ts', 'PAIR_VERSION'],
    ['length of a piece, in bytes', 'src/devices/host/memory.ts', 'PIECE_BYTES'],
    ['pieces, in each direction', 'src/devices/host/memory.ts', 'MAX_PIECES'],
    ['shortest DMB', 'src/devices/host/memory.ts', 'SMALLEST_SLOT_BYTES'],
    ['longest DMB', 'src/devices/host/memory.ts', 'LARGEST_SLOT_BYTES'],
    ['places in a signal ring', 'src/devices/host/pair.ts', 'SIGNAL_CAPACITY'],
    ['index that means "look at the channel"', 'src/devices/host/pair.ts', 'CHANNEL_INDEX'],
    ['its generation', 'src/devices/host/pair.ts', 'CHANNEL_GENERATION'],
    ['DMBs a peer may register for us', 'src/devices/host/pair.ts', 'MAX_REMOTE_DMBS'],
    ['longest packet', 'src/os/packet.ts', 'MAX_PACKET_BYTES'],
    ['bytes that may wait for a peer that does not read', 'src/devices/host/channel.ts', 'MAX_WAITING_BYTES'],
  ]);

// --- Tables for users ---

function reasons(isOwn) {
  const rows = Object.values(REASONS)
    .filter(({ code: number }) => (number >>> 16 === 0x4953) === isOwn)
    .sort((one, other) => one.code - other.code)
    .map(({ code: number, name, text, hint }) => [code(hex(number)), code(name), text, hint]);
  return table(['code', 'name', 'text', 'hint'], rows);
}

function declineCodes() {
  const rows = Object.entries(SMC_CLC_DECL).map(([name, number]) => [
    code(hex(number)),
    code(name),
    declineReason(number).text,
    name in REASONS ? 'yes' : '',
  ]);
  return table(['code', 'SMC_CLC_DECL_', 'meaning', 'has a reason'], rows);
}

function devices() {
  const host = (access) => new HostDevice({ gid: randomGid(), chid: virtualChid(0), access });
  const all = [
    ['loopback, in one event loop', new LoopbackFabric().createDevice()],
    ['host, mapped', host('mapped')],
    ['host, store', host('store')],
  ];
  const row = (name, pick) => [name, ...all.map(([, device]) => pick(device))];
  return table(
    ['', ...all.map(([name]) => name)],
    [
      row('`access`', ({ capabilities }) => capabilities.access),
      row('`peerCanRead`', ({ capabilities }) => (capabilities.peerCanRead ? 'yes' : 'no')),
      row('`maxDmbs`, towards one peer', ({ capabilities }) => capabilities.maxDmbs),
      row('`maxDmbBytes`', ({ capabilities }) => capabilities.maxDmbBytes),
      row('`events`', ({ capabilities }) => (capabilities.events ? 'yes' : 'no')),
      row('`seid`', ({ seid }) => seid ?? 'none'),
      row('CHID', ({ name }) => (name === 'loopback' ? '0xffff' : '0xff00 to 0xfffe, from the fabric')),
    ],
  );
}

const COMMANDS = [
  [],
  ['run'],
  ['ss'],
  ['clc'],
  ['fabric'],
  ['ueid'],
  ['seid'],
  ['chk'],
  ['doctor'],
  ['demo'],
  ['bench'],
];

function cli() {
  return COMMANDS.map((command) => {
    const file = new URL('dist/src/cli/isthmus.cjs', root).pathname;
    const { stdout, status } = spawnSync(process.execPath, [file, ...command, '--help'], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`isthmus ${command} --help ended with ${status}`);
    return `## isthmus ${command.join(' ')}`.trim().concat(`\n\n\`\`\`\n${stdout.trimEnd()}\n\`\`\``);
  }).join('\n\n');
}

function layers() {
  const { overrides } = JSON.parse(source('biome.json'));
  const rows = overrides.map(({ includes, linter }) => {
    const { patterns } = linter.rules.style.noRestrictedImports.options;
    return [code(includes[0].replace('/**', '/')), [...new Set(patterns.map(({ message }) => message))].join('; ')];
  });
  return table(['folder', 'rule'], rows);
}

const GENERATORS = {
  'fabric versions': () => `Versions spoken today: ${PROTOCOL_VERSION_MIN} to ${PROTOCOL_VERSION_MAX}.`,
  'fabric messages of partitions': () => fabricMessages('partition'),
  'fabric messages of the fabric': () => fabricMessages('fabric'),
  'fabric refusals': () => numbered(REFUSALS),
  'fabric declines': () => numbered(DECLINES),
  'fabric changes of ids': () => numbered(EID_CHANGES),
  'fabric limits': limits,
  'fabric times': times,
  'pair messages': () => headOf('src/devices/host/messages.ts'),
  'pair limits': pairLimits,
  'signal area': () => headOf('src/ism/signal-ring.ts'),
  'DMB head': () => headOf('src/smc/head.ts'),
  'CDC message': () => headOf('src/smc/cdc/message.ts'),
  'sender arrows': () => arrows('sender'),
  'receiver arrows': () => arrows('receiver'),
  'sender machine': () => machine('sender'),
  'receiver machine': () => machine('receiver'),
  'close machine': () => machine('close'),
  'reasons of SMC': () => reasons(false),
  'own reasons': () => reasons(true),
  'decline codes': declineCodes,
  devices,
  cli,
  layers,
};

// --- Writing ---

const isCheck = process.argv.includes('--check');
const used = new Set();
const stale = [];
const documents = [
  'README.md',
  'ARCHITECTURE.md',
  ...readdirSync(new URL('docs/', root)).map((name) => `docs/${name}`),
];
for (const document of documents.filter((name) => name.endsWith('.md'))) {
  const before = source(document);
  const after = before.replace(/<!-- generated: (.*?) -->[\s\S]*?<!-- end of generated -->/g, (_, name) => {
    if (!(name in GENERATORS)) throw new Error(`${document}: nothing generates '${name}'`);
    used.add(name);
    return `<!-- generated: ${name} -->\n\n${GENERATORS[name]()}\n\n<!-- end of generated -->`;
  });
  if (after === before) continue;
  stale.push(document);
  if (!isCheck) writeFileSync(new URL(document, root), after);
}
const unused = Object.keys(GENERATORS).filter((name) => !used.has(name));
if (unused.length > 0) throw new Error(`in no document: ${unused.join(', ')}`);
for (const document of stale) console.log(`${document} ${isCheck ? 'is out of date: npm run docs' : 'written'}`);
if (isCheck && stale.length > 0) process.exitCode = 1;
