import { readHarnessConfig } from '../../activities/harness/config.ts';
import { harnessBinary, installHarness, type HarnessBinary } from '../../activities/harness/installs.ts';
import type { HarnessInstallName } from '../../contracts/harness-versions.ts';

const say = (line: string): void => void process.stderr.write(`${line}\n`);

type Availability = { binary: HarnessBinary } | { binary: undefined; reason: string };

/**
 * The real program of a harness in its pinned version, installed once for this user. Only where the registry cannot give
 * it there is none: then `reason` belongs into the name of the skipped tests.
 */
export async function installed(name: HarnessInstallName): Promise<Availability> {
  const { installDir } = readHarnessConfig();
  const found = harnessBinary(name, installDir);
  if (found !== undefined) return { binary: found };
  try {
    return { binary: (await installHarness(name, { installDir, env: process.env, say })).binary };
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, ' ').slice(0, 300);
    process.stderr.write(`NOT TESTED: ${name} could not be installed: ${reason}\n`);
    return { binary: undefined, reason };
  }
}
