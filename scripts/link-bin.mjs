// Lets `npx longhaul` in this checkout find the checkout itself; npm links the commands of dependencies only.
import { existsSync, lstatSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folder = path.join(root, 'node_modules', '.bin');
const link = path.join(folder, 'longhaul');
if (existsSync(folder) && process.platform !== 'win32') {
  if (lstatSync(link, { throwIfNoEntry: false }) !== undefined) rmSync(link);
  symlinkSync(path.join('..', '..', 'bin', 'longhaul.mjs'), link);
}
