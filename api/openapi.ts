import { z } from 'zod';
import type { ZodOpenApiOperationObject, ZodOpenApiPathsObject } from 'zod-openapi';
import { createDocument } from 'zod-openapi';
import type { AnyEndpoint } from './endpoint.ts';

const errorBody = z
  .object({
    type: z.literal('error'),
    error: z.object({
      type: z.string(),
      message: z.string(),
      code: z.string().meta({ description: 'Stable; see /docs/errors' }),
      field: z.string().optional(),
      next: z.string().meta({ description: 'What to do about it' }),
      doc_url: z.string(),
      details: z.object({ error_code: z.string() }),
    }),
    request_id: z.string(),
  })
  .meta({ id: 'Error' });

const failure = { description: 'An error', content: { 'application/json': { schema: errorBody } } };
const idempotencyKey = z.object({
  'Idempotency-Key': z.string().max(255).optional().meta({
    description: 'Makes the request safe to repeat for 24 hours: the same body gets the first answer again',
  }),
});

/** The OpenAPI 3.1 document, from the very schemas the routes validate with. */
export function openApiDocument(endpoints: readonly AnyEndpoint[]): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const item of endpoints) {
    paths[item.path] = { ...paths[item.path], [item.method]: operation(item) };
  }
  return createDocument({
    openapi: '3.1.0',
    info: {
      title: 'Longhaul',
      version: '1',
      description:
        'Durable agent sessions. Shapes follow the Managed Agents API, so its SDKs work by base URL alone. Beta headers and `anthropic-version` are accepted and never needed.',
    },
    security: [{ bearer: [] }, { apiKey: [] }],
    components: {
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      },
    },
    paths,
  });
}

function operation(item: AnyEndpoint): ZodOpenApiOperationObject {
  const isPublic = item.kind === 'raw' && item.public;
  const body = item.kind === 'json' ? item.body : item.form;
  const bodyType = item.kind === 'json' ? 'application/json' : 'multipart/form-data';
  return {
    operationId: operationId(item),
    tags: [item.tag],
    summary: item.summary,
    ...(item.description === undefined ? {} : { description: item.description }),
    ...(isPublic ? { security: [] } : {}),
    requestParams: {
      path: item.params,
      query: item.query,
      ...(item.method === 'post' ? { header: idempotencyKey } : {}),
    },
    ...(body === undefined ? {} : { requestBody: { required: true, content: { [bodyType]: { schema: body } } } }),
    responses: { 200: { description: 'Done', content: answers(item) }, default: failure },
  };
}

function answers(item: AnyEndpoint): Record<string, { schema: z.ZodType }> {
  if (item.kind === 'json') return { 'application/json': { schema: item.response } };
  const text = { [item.contentType]: { schema: z.string() } };
  return item.json === undefined ? text : { 'application/json': { schema: item.json }, ...text };
}

function operationId(item: AnyEndpoint): string {
  const words = item.path
    .replaceAll(/[{}]/g, '')
    .split(/[/_.]+/)
    .filter((word) => word !== '' && word !== 'v1');
  return [item.method, ...words]
    .map((word, index) => (index === 0 ? word : word.charAt(0).toUpperCase() + word.slice(1)))
    .join('');
}
