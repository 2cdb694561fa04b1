import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createMcpHandler, Server } from '@modelcontextprotocol/server';

/** An MCP server of somebody else, made with the official library, that takes one bearer token. */
export interface McpDouble {
  url: string;
  host: string;
  /** null: anybody may ask. */
  token: string | null;
  calls: { tool: string; input: Record<string, unknown> }[];
  /** Of all requests. */
  authorizations: (string | undefined)[];
  /** Lets the calls of `hang` go on. */
  release(): void;
  close(): void;
}

const schema = { type: 'object' as const, properties: { text: { type: 'string' } } };
const TOOLS = ['echo', 'note', 'hidden', 'whoami', 'hang', 'fails'].map((name) => ({
  name,
  description: `Does ${name}.`,
  inputSchema: schema,
}));

const text = (value: string): { content: { type: 'text'; text: string }[] } => ({
  content: [{ type: 'text', text: value }],
});

export async function startMcpDouble(token: string | null): Promise<McpDouble> {
  const waiting: (() => void)[] = [];
  const double = { token, calls: [], authorizations: [] } as unknown as McpDouble;
  const answer = async (tool: string, input: Record<string, unknown>, authorization: string): Promise<object> => {
    double.calls.push({ tool, input });
    switch (tool) {
      case 'whoami':
        return text(`You sent ${authorization}.`);
      case 'hang':
        await new Promise<void>((resolve) => waiting.push(resolve));
        return text('at last');
      case 'fails':
        return { ...text('it did not work'), isError: true };
      default:
        return text(`${tool}: ${String(input['text'])}`);
    }
  };
  const newServer = (authorization: string): Server => {
    const server = new Server({ name: 'double', version: '1' }, { capabilities: { tools: {} } });
    server.setRequestHandler('tools/list', () => ({ tools: TOOLS }));
    server.setRequestHandler(
      'tools/call',
      async ({ params }) =>
        (await answer(params.name, params.arguments ?? {}, authorization)) as ReturnType<typeof text>,
    );
    return server;
  };
  const serve = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const { authorization } = req.headers;
    double.authorizations.push(authorization);
    if (double.token !== null && authorization !== `Bearer ${double.token}`) {
      res.writeHead(401).end(`not ${authorization ?? 'known'}`);
      return;
    }
    const pieces: Buffer[] = [];
    for await (const piece of req) pieces.push(piece as Buffer);
    const headers = new Headers(
      Object.entries(req.headers).flatMap(([name, value]): [string, string][] =>
        typeof value === 'string' ? [[name, value]] : [],
      ),
    );
    const request = new Request(`http://${double.host}${req.url ?? ''}`, {
      method: req.method ?? 'GET',
      headers,
      body: pieces.length === 0 ? null : Buffer.concat(pieces),
    });
    const response = await createMcpHandler(() => newServer(authorization ?? 'nothing')).fetch(request);
    res.writeHead(response.status, Object.fromEntries(response.headers));
    for await (const piece of response.body ?? []) res.write(piece);
    res.end();
  };
  const server = createServer((req, res) => {
    serve(req, res).catch(() => res.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  double.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  double.url = `http://${double.host}/mcp`;
  double.release = () => {
    for (const go of waiting.splice(0)) go();
  };
  double.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return double;
}
