import { randomBytes } from 'node:crypto';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A token endpoint (RFC 6749 §6) that takes each refresh token once, and an MCP server beside it that takes its access tokens. */
export interface OAuthDouble {
  url: string;
  host: string;
  refreshToken: string;
  /** Access tokens the MCP server takes. */
  valid: Set<string>;
  clientSecret: string;
  /** Of each call of the token endpoint. */
  calls: { authorization: string; form: URLSearchParams }[];
  /** Instead of a token: a status with a body. */
  fails: { status: number; body: object } | null;
  /** Runs after a token was made and before it is sent. */
  beforeAnswer: () => Promise<void>;
  expiresInS: number | null;
  /** false: the refresh token stays the same, and is not sent again. */
  rotates: boolean;
  server: Server;
  close(): void;
}

const token = (): string => `canary-${randomBytes(16).toString('hex')}`;

function sendJson(res: ServerResponse, [status, body]: [number, object]): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

export async function startOAuthDouble(): Promise<OAuthDouble> {
  const double = {
    refreshToken: token(),
    valid: new Set<string>(),
    clientSecret: token(),
    calls: [] as OAuthDouble['calls'],
    fails: null,
    beforeAnswer: () => Promise.resolve(),
    expiresInS: 3600,
    rotates: true,
  } as unknown as OAuthDouble;

  const tokenAnswer = (authorization: string, form: URLSearchParams): [number, object] => {
    double.calls.push({ authorization, form });
    if (double.fails !== null) return [double.fails.status, double.fails.body];
    if (form.get('grant_type') !== 'refresh_token') return [400, { error: 'unsupported_grant_type' }];
    if (form.get('refresh_token') !== double.refreshToken) return [400, { error: 'invalid_grant' }];
    const accessToken = token();
    double.valid.add(accessToken);
    if (double.rotates) double.refreshToken = token();
    return [
      200,
      {
        access_token: accessToken,
        token_type: 'Bearer',
        ...(double.expiresInS === null ? {} : { expires_in: double.expiresInS }),
        ...(double.rotates ? { refresh_token: double.refreshToken } : {}),
      },
    ];
  };
  double.server = createServer((req, res) => {
    let text = '';
    req.on('data', (piece: Buffer) => (text += piece.toString()));
    req.on('end', () => {
      const authorization = req.headers.authorization ?? '';
      if (req.url === '/token') {
        const answer = tokenAnswer(authorization, new URLSearchParams(text));
        void double.beforeAnswer().then(() => sendJson(res, answer));
        return;
      }
      const isKnown = double.valid.has(authorization.replace(/^Bearer /, ''));
      sendJson(
        res,
        isKnown
          ? [200, { jsonrpc: '2.0', id: 1, result: { protocolVersion: '2025-06-18', capabilities: {} } }]
          : [401, { error: `no such token: ${authorization}`, token64: Buffer.from(authorization).toString('base64') }],
      );
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => double.server.once('listening', resolve));
  double.host = `127.0.0.1:${(double.server.address() as AddressInfo).port}`;
  double.url = `http://${double.host}`;
  double.close = () => {
    double.server.closeAllConnections();
    double.server.close();
  };
  return double;
}
