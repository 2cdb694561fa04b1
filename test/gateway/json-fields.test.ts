import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { costMicros } from '../../contracts/prices.ts';
import { findTopLevelFields } from '../../gateway/routing/json-fields.ts';
import { readRequestFacts, withModel, withUsageReport } from '../../gateway/routing/request.ts';
import { NO_USAGE } from '../../gateway/usage/normalise.ts';

const object = fc.dictionary(fc.string(), fc.jsonValue());
const limitOf = (text: string): number | null => readRequestFacts(Buffer.from(text)).maxOutputTokens;

describe('the scan for top-level fields', () => {
  it('agrees with a parser on every JSON object', () => {
    fc.assert(
      fc.property(object, fc.jsonValue(), fc.nat(4), (rest, model, indent) => {
        const value = { ...rest, model };
        const body = Buffer.from(JSON.stringify(value, null, indent));
        const span = findTopLevelFields(body, ['model'])?.get('model');
        // Names with escapes make it give up, which is no mistake.
        if (span === undefined)
          expect(Object.keys(value).some((name) => JSON.stringify(name).includes('\\'))).toBe(true);
        else expect(JSON.parse(body.toString('utf8', span.start, span.end))).toEqual(JSON.parse(JSON.stringify(model)));
      }),
    );
  });

  it('never finds a field in bytes a parser refuses for their frame', () => {
    for (const text of [
      '',
      '{',
      '{"model":"x"',
      '{"model":"x"}}',
      '["model"]',
      '{"a":{"model":"x"}',
      '{"model" "x"}',
    ]) {
      expect(findTopLevelFields(Buffer.from(text), ['model'])).toBeUndefined();
    }
  });

  it('leaves a doubled or escaped field to the parser', () => {
    expect(readRequestFacts(Buffer.from('{"model":"a","model":"b"}')).model).toBe('b');
    expect(readRequestFacts(Buffer.from('{"mod\\u0065l":"c"}')).model).toBe('c');
  });

  it('reads how much the model may write, under the name each protocol gives it', () => {
    expect(limitOf('{"model":"m","max_tokens":100}')).toBe(100);
    expect(limitOf('{"model":"m","max_output_tokens":7,"input":"max_tokens"}')).toBe(7);
    expect(limitOf('{"max_completion_tokens":9,"model":"m","max_tokens":3}')).toBe(9);
    expect(limitOf('{"mod\\u0065l":"m","max_tokens":5}')).toBe(5);
    for (const none of ['', ',"max_tokens":null', ',"max_tokens":"9"', ',"max_tokens":-1', ',"a":{"max_tokens":9}']) {
      expect(limitOf(`{"model":"m"${none}}`)).toBeNull();
    }
  });

  it('replaces the model only', () => {
    fc.assert(
      fc.property(object, fc.string({ minLength: 1 }), (rest, model) => {
        const body = Buffer.from(JSON.stringify({ ...rest, model: 'old' }));
        expect(JSON.parse(withModel(body, model).toString())).toEqual({
          ...(JSON.parse(body.toString()) as object),
          model,
        });
      }),
    );
  });

  it('asks for the usage of every chat stream', () => {
    fc.assert(
      fc.property(object, fc.option(fc.jsonValue()), (rest, options) => {
        const request = { ...rest, model: 'm', ...(options === null ? {} : { stream_options: options }) };
        const sent = JSON.parse(
          withUsageReport('chat', Buffer.from(JSON.stringify(request)), true).toString(),
        ) as object;
        expect(sent).toMatchObject({ model: 'm', stream_options: { include_usage: true } });
      }),
    );
  });
});

describe('prices', () => {
  const usage = { ...NO_USAGE, inputTokens: 1_000_000, outputTokens: 1_000_000 };

  it('are those of the model, of its snapshots and of its prefixed names', () => {
    for (const model of ['claude-opus-5', 'anthropic/claude-opus-5', 'claude-opus-5-20261021']) {
      expect(costMicros(model, usage)).toBe(30_000_000);
    }
    expect(costMicros('scripted', usage)).toBe(6_000_000);
    expect(costMicros('toString', usage)).toBeNull();
  });

  it('rise for long contexts', () => {
    const long = { ...NO_USAGE, inputTokens: 1, cacheReadTokens: 271_999, outputTokens: 10 };
    // (1 x 2.5 + 271,999 x 0.25) x 2 + 10 x 15 x 1.5
    expect(costMicros('gpt-5.4', long)).toBe(Math.ceil((2.5 + 271_999 * 0.25) * 2 + 225));
    expect(costMicros('gpt-5.4', { ...long, inputTokens: 0 })).toBe(Math.ceil(271_999 * 0.25 + 150));
  });

  it('round a part of a micro-dollar up', () => {
    expect(costMicros('gpt-5-nano', { ...NO_USAGE, inputTokens: 1 })).toBe(1);
    expect(costMicros('gpt-5-nano', NO_USAGE)).toBe(0);
  });
});
