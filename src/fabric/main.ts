/**
 * The fabric that programs start by themselves (start.ts). Bundled into one file, so that it runs whatever becomes of the rest.
 * Arguments: one JSON object, the options of runFabric.
 */
import { type FabricRunOptions, runFabric } from './run.ts';

process.title = 'isthmus-fabric';
const options = JSON.parse(process.argv[2] ?? '{}') as FabricRunOptions;
const end = () => process.exit(0);
const fabric = runFabric(options, end);
if (fabric === null) end();
else for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => fabric.stop());
