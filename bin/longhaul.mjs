#!/usr/bin/env node
// The command `longhaul`. In a checkout it compiles first when sources changed; an installed package is compiled already.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const main = path('../dist/cli/main.js');

if (existsSync(path('../tsconfig.build.json'))) {
  // What the build prints is talk, and stdout is for data.
  const { status } = spawnSync(process.execPath, [path('../scripts/build.mjs')], { stdio: ['ignore', 2, 2] });
  if (status !== 0) {
    const fallback = existsSync(main);
    process.stderr.write(`longhaul: the build failed${fallback ? '; running what is compiled' : ''}\n`);
    if (!fallback) process.exit(1);
  }
}
process.argv[1] = main;
await import(new URL('../dist/cli/main.js', import.meta.url));
