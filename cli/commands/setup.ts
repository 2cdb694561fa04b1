import type { CliConfig } from '../config.ts';
import { EXIT, messageOf, say } from '../output.ts';
import { hydratePostgres, requirePostgres } from '../stack/postgres-package.ts';
import { installCommand, installPackages, missingPrograms } from '../stack/system-packages.ts';
import { findTemporal } from '../stack/temporal-binary.ts';

/** Makes this machine ready. Everything is looked at each time, so nothing can go stale; it takes a fraction of a second. */
export async function setup(config: CliConfig): Promise<number> {
  const done: string[] = [];
  try {
    if (!installPrograms(done)) return EXIT.failed;
    if (config.databaseUrl === undefined) preparePostgres(done);
    if (config.temporalAddress === undefined) await prepareTemporal(config, done);
  } catch (error) {
    say(messageOf(error));
    return EXIT.failed;
  }
  say(done.length === 0 ? 'Everything is set up.' : `Set up: ${done.join(', ')}.`);
  return EXIT.ok;
}

function installPrograms(done: string[]): boolean {
  const missing = missingPrograms();
  if (missing.length === 0) return true;
  const command = installCommand(missing);
  if (command === null) {
    say(`Missing: ${missing.join(', ')}. Install them with this system's package manager, then run setup again.`);
    return false;
  }
  if (!installPackages(command, say)) {
    say(`Missing: ${missing.join(', ')}. Run this, then run setup again:\n  sudo ${command.join(' ')}`);
    return false;
  }
  done.push(...missing);
  return true;
}

function preparePostgres(done: string[]): void {
  const native = requirePostgres();
  const made = hydratePostgres(native);
  if (made > 0) done.push(`${made} library links of Postgres`);
}

async function prepareTemporal(config: CliConfig, done: string[]): Promise<void> {
  if ((await findTemporal(config)) !== null) return;
  // Loaded only when needed: it brings an HTTP client.
  const { obtainTemporal } = await import('../stack/temporal-obtain.ts');
  const binary = await obtainTemporal(config.cacheDir, say);
  done.push(`Temporal server ${binary.serverVersion} (${binary.source}) in ${binary.path}`);
}
