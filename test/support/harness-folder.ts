import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const MODULES = path.dirname(path.dirname(createRequire(import.meta.url).resolve('undici/package.json')));

/** A folder with the agent double and the packages it needs, as an installed harness has it. */
export function doubleFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'longhaul-double-'));
  // Sandboxes have users of their own.
  chmodSync(folder, 0o755);
  const wanted = ['@agentclientprotocol/sdk', '@modelcontextprotocol/client', 'undici'];
  const done = new Set<string>();
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (done.has(name)) continue;
    done.add(name);
    const from = path.join(MODULES, name);
    const to = path.join(folder, 'node_modules', name);
    mkdirSync(path.dirname(to), { recursive: true });
    cpSync(from, to, { recursive: true, filter: (file) => !file.endsWith('.map') && !file.endsWith('.ts') });
    const { dependencies = {} } = JSON.parse(readFileSync(path.join(from, 'package.json'), 'utf8')) as {
      dependencies?: Record<string, string>;
    };
    wanted.push(...Object.keys(dependencies));
  }
  cpSync(fileURLToPath(new URL('../doubles/acp-agent.mjs', import.meta.url)), path.join(folder, 'acp-agent.mjs'));
  return folder;
}
