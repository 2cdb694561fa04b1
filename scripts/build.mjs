// Compiles to dist/ and bundles the workflows; each part is skipped when its inputs did not change.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, linkSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const dist = path.join(root, 'dist');
const folders = JSON.parse(readFileSync(path.join(root, 'tsconfig.build.json'), 'utf8')).include;

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .toSorted();
}

function digestOf(files) {
  const hash = createHash('sha256');
  for (const file of files) hash.update(file).update(readFileSync(file));
  return hash.digest('hex');
}

function isCurrent(stamp, digest) {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === digest;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Two builders at once would read each other's half-written files. */
async function withLock(work) {
  mkdirSync(dist, { recursive: true });
  const lock = path.join(dist, '.building');
  const mine = `${lock}.${process.pid}`;
  writeFileSync(mine, String(process.pid));
  try {
    for (;;) {
      try {
        linkSync(mine, lock);
        break;
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
        const holder = existsSync(lock) ? Number(readFileSync(lock, 'utf8')) : 0;
        if (holder === 0 || !isAlive(holder)) rmSync(lock, { force: true });
        else await delay(100);
      }
    }
    try {
      return await work();
    } finally {
      rmSync(lock, { force: true });
    }
  } finally {
    rmSync(mine, { force: true });
  }
}

/** Output whose source was deleted or renamed would still be found, run, or applied as a migration. */
function removeOrphans() {
  for (const folder of folders) {
    const compiled = path.join(dist, folder);
    if (!existsSync(compiled)) continue;
    for (const file of filesUnder(compiled)) {
      const source = path.join(root, path.relative(dist, file).replace(/(\.d)?\.(js|ts)$/, '.ts'));
      if (/\.(js|d\.ts)$/.test(file) && !existsSync(source)) rmSync(file);
    }
  }
}

function compile() {
  const inputs = folders
    .map((folder) => path.join(root, folder))
    .filter(existsSync)
    .flatMap(filesUnder);
  inputs.push(...['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].map((name) => path.join(root, name)));
  const digest = digestOf(inputs);
  const stamp = path.join(dist, '.compiled');
  if (isCurrent(stamp, digest)) return true;
  const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
  const options = { stdio: 'inherit', cwd: root };
  const { status } = spawnSync(process.execPath, [tsc, '-p', path.join(root, 'tsconfig.build.json')], options);
  const migrations = path.join(dist, 'db', 'migrations');
  rmSync(migrations, { recursive: true, force: true });
  cpSync(path.join(root, 'db', 'migrations'), migrations, { recursive: true });
  removeOrphans();
  if (status === 0) writeFileSync(stamp, digest);
  return status === 0;
}

async function bundle() {
  const inputs = ['workflows', 'contracts'].flatMap((folder) => filesUnder(path.join(root, folder)));
  const digest = digestOf([...inputs, path.join(root, 'package-lock.json')]);
  const stamp = path.join(dist, 'workflows', '.bundled');
  if (isCurrent(stamp, digest)) return;
  const { bundleWorkflowCode } = await import(pathToFileURL(require.resolve('@temporalio/worker')).href);
  const silent = { log() {}, trace() {}, debug() {}, info() {}, warn() {}, error: console.error };
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(dist, 'workflows', 'index.js'),
    logger: silent,
  });
  mkdirSync(path.dirname(stamp), { recursive: true });
  writeFileSync(path.join(dist, 'workflows', 'bundle.cjs'), code);
  writeFileSync(stamp, digest);
}

await withLock(async () => {
  // The compiler writes its output in spite of type errors: the rest goes on, and the exit code tells.
  if (!compile()) process.exitCode = 1;
  await bundle();
});
