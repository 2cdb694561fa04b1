import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EgressBed, secureUpstream, type EgressSandbox, type Upstream } from '../support/egress-bed.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

describe.each(SANDBOX_MODES)('clients in a sandbox, $name', (mode) => {
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let api: Upstream;
  beforeAll(async () => {
    bed = await EgressBed.start({ mode, rules: { hosts: { 'api.test': {} }, addresses: ['127.0.0.1'] } });
    bed.name('api.test', '127.0.0.1');
    api = await secureUpstream(bed.authority.issue('api.test'));
    sandbox = await bed.sandbox('clients');
  }, 180_000);
  afterAll(async () => {
    api?.close();
    await bed?.close();
  }, 180_000);

  it('curl speaks HTTP/1.1 and HTTP/2 over TLS', async () => {
    const one = await sandbox.shell(`curl -sS --http1.1 -d hello https://api.test:${api.port}/echo?a=1`);
    expect(JSON.parse(one.stdout)).toMatchObject({
      method: 'POST',
      url: '/echo?a=1',
      body: 'hello',
      httpVersion: '1.1',
    });
    const two = await sandbox.shell(`curl -sS --http2 -d hello https://api.test:${api.port}/echo?a=1`);
    expect(JSON.parse(two.stdout)).toMatchObject({
      method: 'POST',
      url: '/echo?a=1',
      body: 'hello',
      httpVersion: '2.0',
    });
  }, 120_000);
});
