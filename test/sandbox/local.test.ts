import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { makeBed, SANDBOX_MODES } from '../support/sandbox-modes.ts';

for (const mode of SANDBOX_MODES) sandboxConformance(`local, ${mode.name}`, () => Promise.resolve(makeBed(mode)));
