import { readHarnessConfig } from '../../activities/harness/config.ts';
import { installHarness } from '../../activities/harness/installs.ts';
import { probeHarness, type HarnessProbe } from '../../activities/harness/probe.ts';
import { HARNESS_INSTALL_NAMES, HARNESS_PACKAGES, type HarnessInstallName } from '../../contracts/harness-versions.ts';
import { inheritedEnvironment } from '../config.ts';
import { EXIT, messageOf, print, printJson, say, seconds } from '../output.ts';

function isKnown(name: string): name is HarnessInstallName {
  return (HARNESS_INSTALL_NAMES as string[]).includes(name);
}

/** Installs the harnesses named, or all. One that fails does not keep the others from being installed. */
export async function installHarnesses(names: string[]): Promise<number> {
  const unknown = names.filter((name) => !isKnown(name));
  if (unknown.length > 0) {
    say(`longhaul: no harness ${unknown.join(', ')}. There are: ${HARNESS_INSTALL_NAMES.join(', ')}.`);
    return EXIT.usage;
  }
  const { installDir } = readHarnessConfig();
  let failed = 0;
  for (const name of names.length === 0 ? HARNESS_INSTALL_NAMES : names.filter(isKnown)) {
    const startedMs = Date.now();
    try {
      const { binary, isNew } = await installHarness(name, { installDir, env: inheritedEnvironment(), say });
      const how = isNew ? `installed in ${seconds(Date.now() - startedMs)}` : 'was installed';
      print(`${name} ${binary.version}: ${how}, ${binary.packageDir}`);
    } catch (error) {
      failed += 1;
      say(`${name}: ${messageOf(error)}`);
    }
  }
  return failed === 0 ? EXIT.ok : EXIT.failed;
}

/** Says of each harness whether it is installed and starts. Exit code 0: nothing installed is broken. */
export async function harnessDoctor(options: { json: boolean }): Promise<number> {
  const { installDir } = readHarnessConfig();
  const probes: HarnessProbe[] = [];
  // One after the other: each is a large program, and the machine may be small.
  for (const name of HARNESS_INSTALL_NAMES) probes.push(await probeHarness(name, installDir));
  const ok = probes.every((probe) => !probe.isInstalled || probe.starts !== null);
  const harnesses = probes.map((probe) => ({ ...probe, next: nextOf(probe) }));
  if (options.json) {
    printJson({ ok, harnesses });
  } else {
    for (const { name, version, starts, problem, next } of harnesses) {
      const state = starts !== null ? 'ok  ' : problem === 'not installed' ? '-   ' : 'FAIL';
      print(`${state}  ${name.padEnd(14)} ${version.padEnd(9)} ${problem ?? 'starts'}`);
      if (next !== null) print(`      → ${next}`);
    }
  }
  return ok ? EXIT.ok : EXIT.failed;
}

function nextOf({ name, isInstalled, starts, folder }: HarnessProbe): string | null {
  if (starts !== null) return null;
  const { sizeMb, licence } = HARNESS_PACKAGES[name];
  if (!isInstalled) return `longhaul harness install ${name} (about ${sizeMb} MB, licence: ${licence})`;
  return `Remove ${folder}, then \`longhaul harness install ${name}\`.`;
}
