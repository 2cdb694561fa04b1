import { LonghaulError } from '../../contracts/error-codes.ts';

export interface PortsConfig {
  host: string;
  port: number;
  /** What links begin with; the same that the api has. */
  url: string;
}

const LOOPBACK_HOSTS = new Set(['127.0.0.1', '::1', 'localhost']);

/** Where open ports of sandboxes are served. */
export function readPortsConfig(env: Record<string, string | undefined>): PortsConfig {
  const url = URL.parse(env['LONGHAUL_PORTS_URL'] || 'http://localhost:4881');
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== '/' || url.search !== '') {
    throw new LonghaulError('setup_required', 'LONGHAUL_PORTS_URL must be an http(s) URL without a path');
  }
  const listen = env['LONGHAUL_PORTS_LISTEN'] || `127.0.0.1:${url.port || '4881'}`;
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:]+)):(\d{1,5})$/.exec(listen);
  const [host, port] = [match?.[1] ?? match?.[2] ?? '', Number(match?.[3])];
  if (match === null || port > 65_535) {
    throw new LonghaulError('setup_required', `LONGHAUL_PORTS_LISTEN must be host:port, not "${listen}"`);
  }
  if (!LOOPBACK_HOSTS.has(host) && env['LONGHAUL_ALLOW_PUBLIC'] !== '1') {
    throw new LonghaulError('insecure_bind', `refusing to serve ports of sandboxes on ${host}`);
  }
  return { host, port, url: url.origin };
}
