import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mintKey, openTestBed, startGateway, type RunningGateway, type TestBed } from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;
let key: string;

beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGateway(bed.pool);
  key = await mintKey(bed.pool);
});
afterAll(async () => {
  await gateway.close();
  await bed.close();
});

it('both vendors’ SDKs list the models', async () => {
  const anthropic = await new Anthropic({ baseURL: gateway.url, apiKey: key }).models.list();
  const openai = await new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: key }).models.list();
  expect(anthropic.data.map(({ id }) => id)).toContain('scripted');
  expect(openai.data.map(({ id }) => id)).toEqual(anthropic.data.map(({ id }) => id));
});
