import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findTopLevelFields } from '../../gateway/routing/json-fields.ts';
import { readRequestFacts, withModel, withUsageReport } from '../../gateway/routing/request.ts';

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
