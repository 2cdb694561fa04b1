import { describe, expect, it } from 'vitest';
import { canonicalHost, canonicalHostPattern, hostMatches, isCidr } from '../../contracts/hosts.ts';
import { networkingParam, resolveNetworking } from '../../contracts/networking.ts';

describe('hosts', () => {
  it.each([
    ['API.GitHub.com', 'api.github.com'],
    ['api.github.com.', 'api.github.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['[::1]', '::1'],
    ['0:0::1', '::1'],
    ['127.0.0.1', '127.0.0.1'],
    ['_dmarc.example.com', '_dmarc.example.com'],
    ['localhost', 'localhost'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalHost(text)).toBe(canonical);
  });

  it.each([
    '',
    '.',
    'a..b',
    'a.com..',
    '0x7f.0.0.1',
    '2130706433',
    '127.1',
    '0177.0.0.1',
    '1.2.3',
    'a b.com',
    'a/b',
    'user@a.com',
    'a.com:80',
    'a%2ecom',
    'http://a.com',
    '[a.com]',
    '*.com',
    '*.*.com',
    'a.*.com',
    '*.10.0.0.1',
    '*',
  ])('%s is refused', (text) => {
    expect(canonicalHostPattern(text)).toBeUndefined();
  });

  it('a star stands for names below, not for the name itself or one that only ends alike', () => {
    expect(hostMatches('*.example.com', 'a.example.com')).toBe(true);
    expect(hostMatches('*.example.com', 'a.b.example.com')).toBe(true);
    expect(hostMatches('*.example.com', 'example.com')).toBe(false);
    expect(hostMatches('*.example.com', 'evilexample.com')).toBe(false);
    expect(hostMatches('*.example.com', '.example.com')).toBe(false);
  });

  it('knows networks', () => {
    expect(['10.0.0.0/8', 'fd00::/8', '1.2.3.4/32'].every(isCidr)).toBe(true);
    expect(['10.0.0.0', '10.0.0.0/33', 'a.com/8', '10.0.0/8', '1.2.3.4/', '::/129'].some(isCidr)).toBe(false);
  });
});

describe('networking', () => {
  it('nothing said is nothing allowed', () => {
    const nothing = {
      type: 'limited',
      allowed_hosts: [],
      allow_mcp_servers: false,
      allow_package_managers: false,
    };
    expect(resolveNetworking(undefined)).toEqual(nothing);
    expect(resolveNetworking(networkingParam.parse({ type: 'limited' }))).toEqual(nothing);
  });

  it('keeps hosts and rules in one form', () => {
    const given = networkingParam.parse({
      type: 'limited',
      allowed_hosts: ['API.Example.com.', 'api.example.com', '*.Bücher.example'],
      rules: [{ host: 'API.example.com', methods: ['get'], paths: ['/v1/**'], action: 'allow' }],
      private_addresses: ['10.0.0.0/8', 'Registry.internal'],
    });
    expect(resolveNetworking(given)).toMatchObject({
      allowed_hosts: ['api.example.com', '*.xn--bcher-kva.example'],
      rules: [{ host: 'api.example.com', methods: ['GET'], paths: ['/v1/**'], action: 'allow' }],
      private_addresses: ['10.0.0.0/8', 'registry.internal'],
    });
  });

  it.each([
    [{ allowed_hosts: ['ok.com', 'https://a.com'] }, 'allowed_hosts.1'],
    [{ rules: [{ host: 'a.com', paths: ['/a/../b'], action: 'allow' }] }, 'rules.0.paths.0'],
    [{ rules: [{ host: 'a.com', paths: ['/a%2fb'], action: 'allow' }] }, 'rules.0.paths.0'],
    [{ rules: [{ host: 'a.com', methods: ['GET /'], action: 'allow' }] }, 'rules.0.methods.0'],
    [{ rules: [{ host: 'a.com', action: 'maybe' }] }, 'rules.0.action'],
    [{ private_addresses: ['10.0.0.0/40'] }, 'private_addresses.0'],
    [{ tls_passthrough_hosts: ['*'] }, 'tls_passthrough_hosts.0'],
    [{ max_requests: 0 }, 'max_requests'],
  ])('%j is refused at %s', (fields, path) => {
    const issues = networkingParam.safeParse({ type: 'limited', ...fields }).error?.issues;
    expect(issues?.map((issue) => issue.path.join('.'))).toEqual([path]);
  });
});
