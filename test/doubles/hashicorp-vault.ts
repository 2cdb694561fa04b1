import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The public HTTP interface of HashiCorp Vault and OpenBao as far as KV version 2 and three ways to log in: a double, not the product. */
export interface VaultDouble {
  url: string;
  server: Server;
  rootToken: string;
  namespace: string;
  roleId: string;
  secretId: string;
  kubernetesJwt: string;
  logins: number;
  /** Takes every token of a login back. */
  revokeLogins(): void;
  put(path: string, data: Record<string, unknown>): void;
  close(): void;
}

interface Version {
  data: Record<string, unknown>;
  version: number;
}

export async function startVaultDouble(): Promise<VaultDouble> {
  const secrets = new Map<string, Version[]>();
  const tokens = new Set<string>();
  const double = {
    rootToken: `hvs.${randomBytes(16).toString('hex')}`,
    namespace: 'admin/team',
    roleId: 'role-1',
    secretId: randomBytes(8).toString('hex'),
    kubernetesJwt: `eyJ.${randomBytes(8).toString('hex')}.sig`,
    logins: 0,
    revokeLogins: () => tokens.clear(),
    put: (path: string, data: Record<string, unknown>) => {
      const versions = secrets.get(path) ?? [];
      secrets.set(path, [...versions, { data, version: versions.length + 1 }]);
    },
  } as VaultDouble;

  const logIn = (): object => {
    const token = `hvs.${randomBytes(16).toString('hex')}`;
    tokens.add(token);
    double.logins += 1;
    return { auth: { client_token: token, lease_duration: 3600, renewable: true } };
  };
  const answer = (req: IncomingMessage, body: Record<string, unknown>): [number, object] => {
    const url = new URL(req.url ?? '', 'http://double');
    if (req.headers['x-vault-namespace'] !== double.namespace) return [404, { errors: ['no handler for route'] }];
    if (url.pathname === '/v1/auth/approle/login') {
      const isKnown = body['role_id'] === double.roleId && body['secret_id'] === double.secretId;
      return isKnown ? [200, logIn()] : [400, { errors: ['invalid role or secret ID'] }];
    }
    if (url.pathname === '/v1/auth/kubernetes/login') {
      const isKnown = body['role'] === 'longhaul' && body['jwt'] === double.kubernetesJwt;
      return isKnown ? [200, logIn()] : [403, { errors: ['permission denied'] }];
    }
    const token = String(req.headers['x-vault-token'] ?? '');
    if (token !== double.rootToken && !tokens.has(token)) return [403, { errors: ['permission denied'] }];
    const [, kind, path = ''] = /^\/v1\/secret\/(data|metadata)\/(.*)$/.exec(decodeURIComponent(url.pathname)) ?? [];
    if (kind === 'metadata' && url.searchParams.get('list') === 'true') {
      const keys = [...secrets.keys()].filter((key) => key.startsWith(path)).map((key) => key.slice(path.length));
      return keys.length === 0 ? [404, { errors: [] }] : [200, { data: { keys } }];
    }
    if (kind !== 'data') return [404, { errors: ['no handler for route'] }];
    if (req.method === 'POST') {
      double.put(path, body['data'] as Record<string, unknown>);
      return [
        200,
        { data: { version: secrets.get(path)?.length, created_time: new Date().toISOString(), destroyed: false } },
      ];
    }
    const found = secrets.get(path)?.at(-1);
    if (found === undefined) return [404, { errors: [] }];
    const metadata = {
      version: found.version,
      created_time: new Date().toISOString(),
      deletion_time: '',
      destroyed: false,
    };
    return [200, { request_id: 'r', lease_id: '', data: { data: found.data, metadata } }];
  };
  double.server = createServer((req, res) => {
    let text = '';
    req.on('data', (piece: Buffer) => (text += piece.toString()));
    req.on('end', () => {
      const [status, body] = answer(req, text === '' ? {} : (JSON.parse(text) as Record<string, unknown>));
      res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => double.server.once('listening', resolve));
  double.url = `http://127.0.0.1:${(double.server.address() as AddressInfo).port}`;
  double.close = () => {
    double.server.closeAllConnections();
    double.server.close();
  };
  return double;
}
