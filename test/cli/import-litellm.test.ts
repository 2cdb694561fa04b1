import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { parseRouteFile } from '../../gateway/routing/route-file.ts';
import { makeHome, runCli } from '../support/stack.ts';

const FILE = fileURLToPath(new URL('../gateway/fixtures/litellm-config.yaml', import.meta.url));
const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-import-'));
const home = makeHome();
afterAll(() => {
  rmSync(folder, { recursive: true });
  rmSync(home, { recursive: true });
});

const ENV = {
  ROUTING_UPSTREAM: 'https://example.openai.azure.com',
  ROUTING_UPSTREAM_V1: 'https://models.example/v1',
  ROUTING_MASTER_KEY: 'sk-master',
};

it(
  'prints what was taken and, key by key, what is ignored; what it writes is read again',
  { timeout: 60_000 },
  async () => {
    const output = path.join(folder, 'gateway.yaml');
    const shown = await runCli(['gateway', 'import-litellm', FILE, '--output', output], home, ENV);
    expect(shown.stderr).toContain(`LONGHAUL_GATEWAY_CONFIG=${output}`);
    expect(shown.code).toBe(0);
    const [taken = '', ignored = ''] = shown.stdout.split('\nIgnored:\n');
    expect(taken).toContain('model_list[0]: gpt-4o → openai gpt-4o');
    expect(taken).toContain('the key in ROUTING_MASTER_KEY becomes an API key of team default');
    expect(ignored).toContain('model_list[8]: the provider "cohere" is not known here');
    expect(ignored).toContain('guardrails: ');
    const written = readFileSync(output, 'utf8');
    for (const text of [written, shown.stdout, shown.stderr]) {
      expect(text).not.toContain('sk-this-stands-in-the-file');
      expect(text).not.toContain('sk-master');
    }
    const json = await runCli(['gateway', 'import-litellm', FILE, '--json'], home, ENV);
    const { config } = JSON.parse(json.stdout) as { config: object };
    expect((await parseRouteFile(written, () => undefined)).file).toEqual(config);
  },
);

it('says what is wrong with a file', { timeout: 60_000 }, async () => {
  const missing = await runCli(['gateway', 'import-litellm', path.join(folder, 'none.yaml')], home);
  expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('cannot be read')]);
});
