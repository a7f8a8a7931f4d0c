/** Connections that are in shared memory from the first byte on, against plain ones; the head of their DMBs is Isthmus' own. */
import { compareInBand } from './in-band.ts';

compareInBand('isthmus');
