import path from 'node:path';
import { HARNESS_INSTALL_NAMES } from '../../../contracts/harness-versions.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { HARNESSES_INSIDE } from '../../sandbox/local/enter.ts';
import { SandboxStdio } from '../host/stdio-sandbox.ts';
import { harnessBinary } from '../installs.ts';
import type { HarnessSpec } from '../port.ts';
import { AcpDriver } from './driver.ts';
import { ACP_RECIPES, type AcpRecipe } from './recipes.ts';

/**
 * The driver as the product has it: agents keep their own hands, so they run inside the session's sandbox and nowhere else.
 */
export function acpDriver({ installDir, keepMs }: { installDir: string; keepMs: number }): AcpDriver {
  return new AcpDriver({
    recipes: ACP_RECIPES,
    placements: ['sandbox'],
    keepMs,
    place({ sandbox }) {
      if (sandbox !== undefined) return Promise.resolve(new SandboxStdio(sandbox));
      return Promise.reject(
        new LonghaulError('harness_invalid', 'agents of ACP run in a sandbox', { field: 'placement' }),
      );
    },
    program: (recipe, spec) => Promise.resolve(programInside(recipe, spec, installDir)),
  });
}

/**
 * The installed agent as a local sandbox sees it. In the images of other providers the operator puts it: there it is found on
 * the PATH.
 */
function programInside(recipe: AcpRecipe, { sandbox }: HarnessSpec, installDir: string): string[] | undefined {
  const name = HARNESS_INSTALL_NAMES.find((known) => known === recipe.name);
  if (name === undefined || sandbox?.provider.name !== 'local') return undefined;
  const [script] = harnessBinary(name, installDir)?.args ?? [];
  if (script === undefined) {
    throw new LonghaulError('harness_unavailable', `${name} is not installed: \`longhaul harness install ${name}\``);
  }
  const inside =
    process.platform === 'linux' ? path.posix.join(HARNESSES_INSIDE, path.relative(installDir, script)) : script;
  return ['node', inside, ...recipe.args];
}
