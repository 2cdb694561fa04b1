import { execFileSync } from 'node:child_process';
import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { redactLine, redactTokens } from '../../telemetry/redact.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const letters = (count: number): string =>
  [...randomBytes(count)]
    .map((byte) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'.charAt(byte % 62))
    .join('');
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

describe('secrets by their shape', () => {
  it.each([
    ['GitHub', () => `ghp_${letters(36)}`],
    ['fine-grained GitHub', () => `github_pat_${letters(22)}_${letters(59)}`],
    ['GitLab', () => `glpat-${letters(20)}`],
    ['Anthropic', () => `sk-ant-api03-${letters(80)}`],
    ['OpenAI', () => `sk-proj-${letters(48)}`],
    ['Stripe', () => `sk_live_${letters(24)}`],
    ['Slack', () => `xoxb-${letters(12)}-${letters(12)}-${letters(24)}`],
    ['npm', () => `npm_${letters(36)}`],
    ['Google', () => `AIza${letters(35)}`],
    ['SendGrid', () => `SG.${letters(22)}.${letters(43)}`],
    ['a JWT', () => `eyJ${letters(20)}.eyJ${letters(40)}.${letters(43)}`],
    ['AWS', () => 'AKIAIOSFODNN7EXAMPLE'],
    ['a virtual key', () => `lhv_${letters(40)}`],
    ['a private key', () => privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()],
  ])('%s', (_name, make) => {
    for (let count = 0; count < 50; count += 1) {
      const secret = make();
      for (const text of [secret, `export TOKEN=${secret}\n`, JSON.stringify({ a: [secret] }), `(${secret})`]) {
        // A key of one line of JSON is written otherwise.
        if (secret.includes('\n') && text.startsWith('{')) continue;
        const clean = redactTokens(text);
        expect(clean, text).toContain('[redacted]');
        expect(clean).not.toContain(secret.slice(12, 30));
      }
    }
  });

  it.each(['password', 'AWS_SECRET_ACCESS_KEY', 'client_secret', 'apiKey', 'auth_token'])('the value of %s', (name) => {
    const secret = `${letters(36)}1a2b`;
    for (const text of [`${name}=${secret}`, `${name}: "${secret}"`, `{"${name}":"${secret}"}`]) {
      expect(redactTokens(text)).toBe(text.replace(secret, '[redacted]'));
    }
    expect(redactTokens(`postgres://app:${secret}@db/x`)).toBe('postgres://app:[redacted]@db/x');
  });

  it('keeps placeholders', () => {
    const placeholder = `ghp_${letters(36)}`;
    expect(redactTokens(`a ${placeholder} b ghp_${letters(36)}`, [placeholder])).toBe(`a ${placeholder} b [redacted]`);
  });

  it('changes nothing in paths, hashes, ids, images and words', () => {
    const png = randomBytes(30_000).toString('base64');
    const harmless = [
      ...Array.from({ length: 200 }, () => createHash('sha1').update(randomBytes(8)).digest('hex')),
      ...Array.from({ length: 200 }, () => createHash('sha256').update(randomBytes(8)).digest('hex')),
      ...Array.from({ length: 200 }, () => randomUUID()),
      ...Array.from({ length: 100 }, () => `sesn_${letters(26).toLowerCase()}`),
      `index ${letters(7)}..${letters(7)} 100644`,
      `"integrity": "sha512-${randomBytes(64).toString('base64')}"`,
      `data:image/png;base64,${png}`,
      '/usr/lib/x86_64-linux-gnu/libcrypto.so.3 /home/user/.config/some-app-1.2.3/settings.json',
      'const secret = await resolveCredential(session.credentialId);',
      'password: z.string().min(8).max(1024), token: tokens.next(), api_key: process.env.API_KEY_2',
      'pk_orders_customer_id_fkey sk_constraint_on_table_2 rk-some-long-kebab-case-name-2',
      'https://example.com:8443/path@2x.png ssh://git@github.com:22/a/b.git',
      'authToken: configuration.authentication.token.value, secret: "a secret that is only words"',
    ];
    for (const text of harmless) expect(redactTokens(text)).toBe(text);
  });

  it('changes no line of this repository but those that are made to look like secrets', () => {
    const files = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).split('\n').filter(Boolean);
    let lines = 0;
    const changed: string[] = [];
    for (const file of files) {
      const text = readFileSync(path.join(ROOT, file), 'latin1');
      lines += text.split('\n').length;
      if (file.startsWith('test/') || redactTokens(text) === text) continue;
      for (const line of text.split('\n'))
        if (redactTokens(line) !== line) changed.push(`${file}: ${line.slice(0, 200)}`);
    }
    expect(lines).toBeGreaterThan(50_000);
    expect(changed).toEqual([]);
    const tests = files.filter((file) => file.startsWith('test/') && !file.endsWith('.json'));
    const touched = tests.filter((file) => {
      const text = readFileSync(path.join(ROOT, file), 'latin1');
      return redactTokens(text) !== text;
    });
    // Some tests hold tokens made for them; a rule that fires by itself would touch most.
    expect(touched.length).toBeLessThan(tests.length / 10);
  });

  it('a log line stays JSON whatever is taken out of it', async () => {
    for (const fields of [
      { secret: true, password: 12_345_678 },
      { text: `Authorization: Bearer ${letters(40)}` },
      { nested: { url: `https://a:${letters(20)}@b.test/`, list: [`ghp_${letters(36)}`] } },
    ]) {
      const line = `${JSON.stringify({ level: 'info', msg: 'x', ...fields })}\n`;
      const clean = redactLine(line);
      expect(JSON.parse(clean)).toMatchObject({ level: 'info', msg: 'x' });
      expect(clean.endsWith('\n')).toBe(true);
    }
    const written: string[] = [];
    const { pino } = await import('pino');
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        written.push(chunk.toString());
        done();
      },
    });
    const token = `ghp_${letters(36)}`;
    pino({ hooks: { streamWrite: redactLine } }, stream).info({ err: new Error(`no ${token}`) }, `sent ${token}`);
    expect(written.join('')).toContain('[redacted]');
    expect(written.join('')).not.toContain(token);
  });
});
