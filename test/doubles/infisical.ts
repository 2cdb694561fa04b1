import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The public HTTP interface of Infisical as far as universal auth and reading secrets: a double, not the product. */
export interface InfisicalDouble {
  url: string;
  server: Server;
  clientId: string;
  clientSecret: string;
  projectId: string;
  logins: number;
  revokeLogins(): void;
  put(folder: string, key: string, value: string): void;
  close(): void;
}

export async function startInfisicalDouble(): Promise<InfisicalDouble> {
  const secrets = new Map<string, { value: string; version: number }>();
  const tokens = new Set<string>();
  const double = {
    clientId: 'machine-1',
    clientSecret: randomBytes(8).toString('hex'),
    projectId: 'project-1',
    logins: 0,
    revokeLogins: () => tokens.clear(),
    put: (folder: string, key: string, value: string) => {
      const place = `${folder}|${key}`;
      secrets.set(place, { value, version: (secrets.get(place)?.version ?? 0) + 1 });
    },
  } as InfisicalDouble;

  const answer = (req: IncomingMessage, body: Record<string, unknown>): [number, object] => {
    const url = new URL(req.url ?? '', 'http://double');
    if (req.method === 'POST' && url.pathname === '/api/v1/auth/universal-auth/login') {
      if (body['clientId'] !== double.clientId || body['clientSecret'] !== double.clientSecret) {
        return [401, { message: 'Invalid credentials' }];
      }
      const accessToken = randomBytes(16).toString('hex');
      tokens.add(accessToken);
      double.logins += 1;
      return [200, { accessToken, expiresIn: 7200, accessTokenMaxTTL: 7200, tokenType: 'Bearer' }];
    }
    if (!tokens.has((req.headers.authorization ?? '').replace(/^Bearer /, '')))
      return [401, { message: 'Token missing' }];
    const folder = url.searchParams.get('secretPath') ?? '/';
    if (url.searchParams.get('projectId') !== double.projectId || url.searchParams.get('environment') !== 'prod') {
      return [403, { message: 'You do not have access' }];
    }
    if (url.pathname === '/api/v4/secrets') {
      const found = [...secrets.keys()].filter((place) => place.startsWith(`${folder}|`));
      return [200, { secrets: found.map((place) => ({ secretKey: place.slice(folder.length + 1) })) }];
    }
    const key = decodeURIComponent(/^\/api\/v4\/secrets\/([^/]+)$/.exec(url.pathname)?.[1] ?? '');
    const found = secrets.get(`${folder}|${key}`);
    if (found === undefined) return [404, { message: 'Secret not found' }];
    return [
      200,
      { secret: { secretKey: key, secretValue: found.value, version: found.version, secretValueHidden: false } },
    ];
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
