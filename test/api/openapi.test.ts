import request from 'supertest';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ENDPOINTS } from '../../api/routes/index.ts';
import type { TestApi } from './support.ts';
import { testApi } from './support.ts';

interface Document {
  openapi: string;
  paths: Record<
    string,
    Record<string, { operationId: string; security?: unknown[]; responses: Record<string, unknown> }>
  >;
  components: { schemas: Record<string, unknown> };
}
let api: TestApi;
let document: Document;
beforeAll(async () => {
  api = await testApi();
  document = (await request(api.app).get('/openapi.json').expect(200)).body as Document;
});
afterAll(() => api.close());

it('describes every route once, with an error shape, and marks the public ones', () => {
  expect(document.openapi).toBe('3.1.0');
  const described = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect(described.toSorted()).toEqual(ENDPOINTS.map((item) => `${item.method} ${item.path}`).toSorted());
  const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));
  expect(new Set(operations.map((operation) => operation.operationId)).size).toBe(operations.length);
  for (const operation of operations) expect(operation.responses).toHaveProperty('default');
  const open = Object.entries(document.paths).filter(([, methods]) => methods['get']?.security?.length === 0);
  expect(open.map(([path]) => path).toSorted()).toEqual(['/healthz', '/readyz', '/v1/file_links/{token}']);
});

it('has no dangling reference', () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(
    (match) => match[1],
  );
  expect(references.length).toBeGreaterThan(10);
  for (const name of references) expect(document.components.schemas).toHaveProperty([name ?? '']);
});

it('is what the running resources look like', async () => {
  const made = await api.post('/v1/agents', { name: 'Shape', model: 'scripted' }).expect(200);
  const schema = document.components.schemas['Agent'] as { properties: Record<string, unknown>; required: string[] };
  expect(Object.keys(made.body as object).toSorted()).toEqual(Object.keys(schema.properties).toSorted());
  expect(schema.required.toSorted()).toEqual(Object.keys(schema.properties).toSorted());
});
