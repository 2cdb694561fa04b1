import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readDaytonaConfig } from '../../activities/sandbox/daytona/config.ts';
import { loadDaytona } from '../../activities/sandbox/daytona/load.ts';
import { DaytonaProvider } from '../../activities/sandbox/daytona/provider.ts';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import type { DaytonaBed } from '../support/daytona-bed.ts';
import { makeDaytonaBed } from '../support/daytona-bed.ts';
import { follow, LONG_MS, shell, smallSpec, soon } from '../support/sandbox-commands.ts';

sandboxConformance('daytona, the vendor’s SDK over a double of its service', makeDaytonaBed);

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    return error instanceof LonghaulError ? error.code : String(error);
  }
}

describe('daytona: what goes wrong', { timeout: LONG_MS }, () => {
  let bed: DaytonaBed;
  let ref: SandboxRef;
  const read = async (): Promise<number> => {
    let size = 0;
    for await (const piece of bed.provider.readStream(ref, '/workspace/half', soon())) size += piece.length;
    return size;
  };

  /** What the vendor was asked for. */
  const asked = async (key: string, change: Parameters<typeof smallSpec>[1]): Promise<Record<string, unknown>> => {
    const made = await bed.provider.create(smallSpec('faults', change), key, soon());
    const { request } = bed.double.store.find(made.id) ?? {};
    await bed.provider.destroy(made, soon());
    return request ?? {};
  };

  beforeAll(async () => {
    bed = await makeDaytonaBed();
    ref = await bed.provider.create(smallSpec('faults'), 'shared', soon());
  });

  afterEach(() => bed.double.heal());

  afterAll(async () => {
    await bed.close();
  });

  it('tells errors of the service as the port’s, each with its retry class', async () => {
    const cases = [
      [401, 'Invalid credentials', 'sandbox_auth', false],
      [403, 'Forbidden resource', 'sandbox_auth', false],
      [403, 'Total CPU limit exceeded. Maximum allowed: 10.', 'sandbox_quota', false],
      [429, 'Too many requests', 'sandbox_busy', true],
      [500, 'Internal server error', 'sandbox_unavailable', true],
      [502, 'Bad gateway', 'sandbox_unavailable', true],
      [503, 'no runners', 'sandbox_unavailable', true],
      [504, 'Operation timed out', 'sandbox_unavailable', true],
      [400, 'name must be a string', 'sandbox_invalid', false],
    ] as const;
    for (const [how, message, code, retryable] of cases) {
      bed.double.fail({ method: 'POST', path: /\/sandbox$/, how, message, headers: { 'retry-after': '7' } });
      const error = await bed.provider
        .create(smallSpec('faults'), `code-${how}`, soon())
        .catch((each: unknown) => each);
      expect(error).toBeInstanceOf(LonghaulError);
      const known = error as LonghaulError;
      expect([how, known.code, known.retryable]).toEqual([how, code, retryable]);
      expect(known.message).toContain(message);
      expect(known.message).not.toContain(bed.double.apiKey);
      expect(known.retryAfterMs).toBe(7_000);
    }
  });

  it('never tells its key, whatever the service answers', async () => {
    bed.double.fail({ path: /\/sandbox$/, how: 500, message: `bad key ${bed.double.apiKey} of yours` });
    const error = await bed.provider.create(smallSpec('faults'), 'echo', soon()).catch((each: unknown) => each);
    expect(String(error)).toContain('bad key … of yours');
    const stranger = new DaytonaProvider({ apiKey: 'dtn_wrong_key', apiUrl: bed.double.apiUrl });
    const refused = await stranger.get(ref, soon()).catch((each: unknown) => each);
    expect(refused).toMatchObject({ code: 'sandbox_auth' });
    expect(JSON.stringify(refused)).not.toContain('dtn_wrong_key');
  });

  it('makes one sandbox although the answer to the first try was lost', async () => {
    const before = bed.double.store.made;
    bed.double.fail({ method: 'POST', path: /\/sandbox$/, how: 'drop_after' });
    const first = await codeOf(bed.provider.create(smallSpec('faults'), 'unheard', soon()));
    expect(first).toBe('sandbox_unavailable');
    const made = await bed.provider.create(smallSpec('faults'), 'unheard', soon());
    expect((await shell(bed.provider, made, 'echo works')).stdout).toBe('works\n');
    expect(bed.double.store.made - before).toBe(1);
  });

  it('makes a name anew whose sandbox could not start, and gives it up when asked to abort', async () => {
    const made = await bed.provider.create(smallSpec('faults'), 'broken', soon());
    const inside = bed.double.store.find(made.id);
    if (inside === undefined) throw new Error('it is not there');
    inside.state = 'error';
    expect((await bed.provider.get(made, soon()))?.state).toBe('stopped');
    expect(await codeOf(bed.provider.resume(made, soon()))).toBe('sandbox_lost');
    expect(await codeOf(bed.provider.create(smallSpec('faults'), 'broken', soon()))).toBe('sandbox_unavailable');
    const again = await bed.provider.create(smallSpec('faults'), 'broken', soon());
    expect((await bed.provider.get(again, soon()))?.state).toBe('running');
    bed.double.fail({ path: new RegExp(made.id), how: 'hang' });
    const waiting = new AbortController();
    const answer = bed.provider.get(again, waiting.signal);
    waiting.abort(new DOMException('stop', 'AbortError'));
    await expect(answer).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('says that a sandbox is lost, or gone, when a command meets it so', async () => {
    const made = await bed.provider.create(smallSpec('faults'), 'lost', soon());
    await shell(bed.provider, made, 'true');
    const inside = bed.double.store.find(made.id);
    if (inside === undefined) throw new Error('it is not there');
    bed.double.store.stop(inside);
    await inside.change;
    expect(await codeOf(shell(bed.provider, made, 'true'))).toBe('sandbox_lost');
    expect(await bed.provider.resume(made, soon())).toBe(true);
    expect((await shell(bed.provider, made, 'echo back')).stdout).toBe('back\n');
    bed.double.store.destroy(inside);
    expect(await codeOf(shell(bed.provider, made, 'true'))).toBe('sandbox_not_found');
    expect(await bed.provider.get(made, soon())).toBeNull();
  });

  it('starts a command once although no answer tells that it started', async () => {
    const spec = { execId: 'unheard', argv: ['sh', '-c', 'echo ran >> unheard'], timeoutMs: 60_000 };
    bed.double.fail({ method: 'POST', path: /process\/execute$/, how: 'drop_after' });
    expect(await codeOf(bed.provider.execStart(ref, spec, soon()))).toBe('sandbox_unavailable');
    await bed.provider.execStart(ref, spec, soon());
    await follow(bed.provider, ref, 'unheard');
    expect((await shell(bed.provider, ref, 'cat unheard')).stdout).toBe('ran\n');
  });

  it('does not take half a file for the whole', async () => {
    await bed.provider.writeFile(ref, '/workspace/half', new Uint8Array(3_000_000), soon());
    bed.double.fail({ path: /bulk-download$/, how: 'cut' });
    expect(await codeOf(read())).toBe('sandbox_unavailable');
    expect(await read()).toBe(3_000_000);
  });

  it('asks for what the environment allows, with a limit of its own kind', async () => {
    const plain = await asked('net-none', {});
    expect(plain).toMatchObject({ networkBlockAll: true, autoStopInterval: 0, ttlMinutes: 7 * 24 * 60, public: false });
    expect(plain).not.toHaveProperty('memory');
    const native = { type: 'native' as const, allowedHosts: ['a.example', '*.b.example'] };
    expect(await asked('net-native', { network: native })).toMatchObject({
      networkBlockAll: false,
      domainAllowList: 'a.example,*.b.example',
    });
    const nothing = { type: 'native' as const, allowedHosts: [] };
    expect(await asked('net-nothing', { network: nothing })).toMatchObject({ networkBlockAll: true });
    const proxy = { host: '192.0.2.7', port: 3128 };
    expect(await asked('net-broker', { network: { type: 'broker', proxy } })).toMatchObject({
      networkBlockAll: false,
      networkAllowList: '192.0.2.7/32',
      outboundProxyUrl: 'http://192.0.2.7:3128',
    });
    const image = await asked('image', { image: 'debian:12', cpus: 1.5, memoryBytes: 3 * 1024 ** 3 });
    expect(image).toMatchObject({ cpu: 2, memory: 3, disk: 1, buildInfo: { dockerfileContent: 'FROM debian:12\n' } });
    expect(await asked('template', { image: 'our-template' })).toMatchObject({ snapshot: 'our-template' });
  });

  it('hands the vendor’s placeholders to commands, when it keeps secrets', async () => {
    const options = { apiKey: bed.double.apiKey, apiUrl: bed.double.apiUrl, secrets: { TOKEN: 'our-token' } };
    const provider = new DaytonaProvider(options);
    expect((await provider.capabilities()).secrets).toBe('native');
    const made = await provider.create(smallSpec('faults'), 'secrets', soon());
    expect(bed.double.store.find(made.id)?.request['secrets']).toEqual([{ TOKEN: 'our-token' }]);
    expect((await shell(provider, made, 'echo "$TOKEN"')).stdout).toMatch(/^dtn_secret_\w+\n$/);
  });

  it('tells how to install the SDK when it is not there', async () => {
    await expect(loadDaytona(['@daytona/no-such-sdk'])).rejects.toMatchObject({
      code: 'sandbox_unsupported',
      message: 'the provider daytona needs the SDK: npm install @daytona/no-such-sdk',
    });
    expect(await loadDaytona(['@daytona/no-such-sdk', '@daytonaio/sdk'])).toHaveProperty('Daytona');
  });

  it('reads its settings, and names the one that is wrong', () => {
    expect(readDaytonaConfig({})).toBeUndefined();
    const env = { DAYTONA_API_KEY: 'key', DAYTONA_API_URL: 'https://d.example/api/', DAYTONA_TARGET: '' };
    expect(readDaytonaConfig({ ...env, LONGHAUL_DAYTONA_SECRETS: 'A=a, B=b-c' })).toEqual({
      apiKey: 'key',
      apiUrl: 'https://d.example/api',
      memoryPause: false,
      secrets: { A: 'a', B: 'b-c' },
    });
    expect(() => readDaytonaConfig({ ...env, LONGHAUL_DAYTONA_SECRETS: 'A' })).toThrow(/VARIABLE=/);
    expect(() => readDaytonaConfig({ ...env, LONGHAUL_DAYTONA_TTL_MINUTES: '1' })).toThrow(/60/);
  });
});
