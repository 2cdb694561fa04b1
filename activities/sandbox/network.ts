import type { CloudEnvironment } from '../../contracts/definitions.ts';
import type { SandboxControl, SandboxControls } from '../../contracts/sandboxes.ts';
import type { LimitState, SandboxCapabilities, SandboxNetwork } from './port.ts';

/** Where the broker is found inside every network namespace. */
const PROXY_INSIDE = 'http://127.0.0.1:3128';
/** What the broker's certificate authority is bound over. */
const CA_FILE = '/etc/ssl/certs/ca-certificates.crt';
const CA_VARIABLES = [
  'NODE_EXTRA_CA_CERTS',
  'SSL_CERT_FILE',
  'REQUESTS_CA_BUNDLE',
  'CURL_CA_BUNDLE',
  'GIT_SSL_CAINFO',
  'PIP_CERT',
  'NPM_CONFIG_CAFILE',
  'npm_config_cafile',
  'AWS_CA_BUNDLE',
  'DENO_CERT',
];
const PROXY_VARIABLES = ['HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy', 'ALL_PROXY'];
const NOT_PROXIED = 'localhost,127.0.0.1,::1';

/**
 * What the provider is told. The broker wherever the sandbox can come to it: by a listener in its own network, else at
 * `proxy`, the broker's public listener; without a broker the provider's own filter; else nothing.
 */
export function networkOf(
  capabilities: SandboxCapabilities,
  { networking }: CloudEnvironment,
  broker: { proxy: { host: string; port: number } | null } | null,
): SandboxNetwork {
  if (broker !== null && capabilities.egress === 'listener') return { type: 'broker', proxy: null };
  if (broker !== null && broker.proxy !== null && capabilities.egress !== 'none') {
    return { type: 'broker', proxy: broker.proxy };
  }
  if (capabilities.egress !== 'domains') return { type: 'none' };
  if (networking.type === 'unrestricted') return { type: 'open' };
  const { allowed_hosts: allowedHosts } = networking;
  return allowedHosts.length === 0 ? { type: 'none' } : { type: 'native', allowedHosts };
}

const HOSTS_NAMED = 20;

/** What can be reached, in words for people and models. */
export function reachOf(network: SandboxNetwork, { networking }: CloudEnvironment): string {
  if (network.type === 'none') return 'none';
  if (networking.type === 'unrestricted') return 'unrestricted';
  const { allowed_hosts: hosts, allow_package_managers: packages, rules = [], unmatched } = networking;
  const ruled = rules.flatMap(({ host, action }) => (action === 'deny' ? [] : [host]));
  const named = [...new Set([...hosts, ...ruled])];
  const parts = [
    ...named.slice(0, HOSTS_NAMED),
    ...(named.length > HOSTS_NAMED ? [`${named.length - HOSTS_NAMED} more`] : []),
    ...(packages && network.type === 'broker' ? ['package registries'] : []),
    ...(unmatched === 'ask' && network.type === 'broker' ? ['others when a person agrees'] : []),
  ];
  return parts.length === 0 ? 'none' : `limited to ${parts.join(', ')}`;
}

/** Proxy and certificate variables: every program that honours one of them finds the broker and trusts it. */
export function proxyVariables(proxyUrl: string = PROXY_INSIDE): Record<string, string> {
  return Object.fromEntries([
    ...PROXY_VARIABLES.map((name) => [name, proxyUrl]),
    ...CA_VARIABLES.map((name) => [name, CA_FILE]),
    ['NO_PROXY', NOT_PROXIED],
    ['no_proxy', NOT_PROXIED],
  ]);
}

const enforced = (reason: string): SandboxControl => ({ state: 'enforced', reason });
const unavailable = (reason: string): SandboxControl => ({ state: 'unavailable', reason });

/** What is kept here, and how; never more than the provider says it does. */
export function controlsOf(capabilities: SandboxCapabilities, network: SandboxNetwork): SandboxControls {
  return {
    network: networkControl(network),
    credentials:
      network.type === 'broker'
        ? enforced('the sandbox has placeholders; the egress broker puts values in for their hosts only')
        : unavailable('placeholders are not replaced: the sandbox does not go through the egress broker'),
    limits: limitsControl(capabilities.limits),
    pause: pauseControl(capabilities.pause),
    snapshot: capabilities.snapshot
      ? enforced('its files are saved and come back in another sandbox')
      : unavailable('the provider saves no files'),
  };
}

function networkControl(network: SandboxNetwork): SandboxControl {
  switch (network.type) {
    case 'none':
      return enforced('no network');
    case 'broker':
      return enforced('everything goes through the egress broker');
    case 'native':
      return enforced('the provider lets only the named hosts through; requests are not recorded here');
    case 'open':
      return unavailable('the environment is unrestricted and the provider has no broker before it');
  }
}

function limitsControl(limits: Record<string, LimitState>): SandboxControl {
  const named = (state: LimitState): string =>
    Object.entries(limits)
      .flatMap(([name, kept]) => (kept === state ? [name] : []))
      .join(', ');
  const [watched, missing] = [named('watched'), named('unavailable')];
  const parts = [watched === '' ? '' : `watched: ${watched}`, missing === '' ? '' : `not kept: ${missing}`];
  const reason = parts.filter((part) => part !== '').join('; ');
  if (missing !== '') return unavailable(reason);
  return watched === '' ? enforced('memory, processes, processors, disk and output') : { state: 'observed', reason };
}

function pauseControl(pause: SandboxCapabilities['pause']): SandboxControl {
  switch (pause) {
    case 'memory':
      return enforced('files are kept, and processes where the environment says so');
    case 'filesystem':
      return enforced('files are kept; processes end');
    case 'none':
      return unavailable('the provider cannot pause');
  }
}
