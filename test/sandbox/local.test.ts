import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { makeBed, SANDBOX_MODES } from '../support/sandbox-modes.ts';

const GIB = 1024 * 1024 * 1024;

for (const [index, mode] of SANDBOX_MODES.entries()) {
  sandboxConformance(`local, ${mode.name}`, () => {
    // Once is enough to see that nothing holds the whole of a file.
    return Promise.resolve({ ...makeBed(mode), ...(index === 0 && { bigFileBytes: GIB }) });
  });
}
