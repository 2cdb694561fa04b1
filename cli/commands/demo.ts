import { setTimeout as delay } from 'node:timers/promises';
import { confirm, isCancel } from '@clack/prompts';
import { anyAbort } from '../../contracts/abort.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { inheritedEnvironment, type CliConfig } from '../config.ts';
import { checkAll, type Check } from '../demo/checks.ts';
import { GuardedUpstream } from '../demo/guarded.ts';
import { OwnStack } from '../demo/own-stack.ts';
import { oneLine, Printer } from '../demo/printer.ts';
import { runDemo, workflowUrl, type DemoRun } from '../demo/run.ts';
import { EXIT, messageOf, say, seconds } from '../output.ts';
import { setup } from './setup.ts';

const SCRIPTED = 'scripted';
/** The models that a key in the environment stands for. */
const REAL_MODELS = [
  ['ANTHROPIC_API_KEY', 'claude-sonnet-5'],
  ['OPENAI_API_KEY', 'gpt-5.4-mini'],
] as const;
const ANSWER_AFTER_MS = 1_500;
const LIMIT_MS = { scripted: 150_000, real: 600_000 } as const;

export interface DemoOptions {
  interactive: boolean;
  keep: boolean;
  model: string | undefined;
}

/** Shows on a stack of its own what survives what; the exit code is 0 only when every printed claim was checked. */
export async function demo(config: CliConfig, options: DemoOptions): Promise<number> {
  if (options.interactive && !process.stdin.isTTY) {
    say('--interactive needs a terminal; without it the approval is answered after a moment.');
    return EXIT.usage;
  }
  if ((await setup(config)) !== EXIT.ok) return EXIT.failed;
  const startedMs = Date.now();
  const upstream = new GuardedUpstream();
  const stack = new OwnStack('demo', upstream.env);
  const interrupted = new AbortController();
  const onSignal = (): void => interrupted.abort();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  let code: number = EXIT.failed;
  try {
    code = await untilAborted(play({ stack, upstream }, options, interrupted.signal), interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) code = EXIT.interrupted;
    else say(`\nThe demo failed: ${messageOf(error)}`);
  } finally {
    upstream.close();
  }
  const kept = options.keep && code !== EXIT.interrupted && stack.isUp();
  if (!kept) await cleanUp(stack, code);
  say(`${kept ? 'Ended' : 'Stack stopped'} after ${seconds(Date.now() - startedMs)}.`);
  return code;
}

/** Ends the wait, not the work: what is under way sees the signal itself. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(new LonghaulError('cancelled', 'interrupted')), { once: true });
  });
  return Promise.race([work, aborted]);
}

async function cleanUp(stack: OwnStack, code: number): Promise<void> {
  say(code === EXIT.interrupted ? '\nInterrupted: stopping the stack.' : '\nStopping the stack.');
  try {
    await stack.stop();
  } catch (error) {
    say(messageOf(error));
  }
  stack.remove(code === EXIT.failed);
  if (code === EXIT.failed) say(`Logs: ${stack.logs}`);
}

async function play(
  { stack, upstream }: { stack: OwnStack; upstream: GuardedUpstream },
  options: DemoOptions,
  interrupted: AbortSignal,
): Promise<number> {
  const printer = new Printer();
  const model = options.model ?? modelOfKeys();
  const isScripted = model === SCRIPTED;
  printer.title('Longhaul demo');
  printer.line(isScripted ? 'Model: scripted (offline).' : `Model: ${model}, with the key of your environment.`);
  if (!isScripted)
    printer.line('A real model decides by itself: claims that need the script are checked less strictly.');
  printer.title('Timeline');
  printer.event('stack', 'starting one of its own: Postgres, Temporal, api with gateway, egress broker, worker');
  const devJson = await stack.start();
  printer.event('stack', `ready at ${devJson.apiUrl}, home ${stack.home}`);
  const limitMs = isScripted && !options.interactive ? LIMIT_MS.scripted : LIMIT_MS.real;
  const limit = AbortSignal.timeout(limitMs);
  const signal = anyAbort([interrupted, limit]);
  const run = { stack, upstream, devJson, model, isScripted, printer, signal };
  const facts = await untilAborted(runDemo({ ...run, answer: answerOf(run, options) }), signal).catch(
    (error: unknown) => {
      if (limit.aborted) throw new LonghaulError('internal', `it was not through after ${seconds(limitMs)}`);
      throw error;
    },
  );
  const checks = checkAll(facts);
  printer.title('Checked');
  for (const entry of checks) printer.line(checkLine(printer, entry));
  const failed = checks.filter((entry) => entry.state === 'failed');
  printer.title(
    failed.length === 0 ? 'Every claim above was checked.' : `${failed.length} of these claims do not hold:`,
  );
  for (const entry of failed) printer.line(entry.text);
  if (options.keep) {
    printer.line(`Temporal UI  ${workflowUrl(devJson, facts.session.id)}`);
    printer.line(`API docs     ${devJson.apiUrl}/docs`);
    printer.line(`Stop it      LONGHAUL_HOME=${stack.home} npx longhaul stop && rm -r ${stack.home}`);
  }
  return failed.length === 0 ? EXIT.ok : EXIT.failed;
}

function checkLine(printer: Printer, { state, text }: Check): string {
  switch (state) {
    case 'ok':
      return `${printer.style('green', '✓')} ${text}`;
    case 'failed':
      return `${printer.style('red', '✗')} ${text}`;
    case 'left_out':
      return `${printer.style('yellow', '–')} not checked: ${text}`;
  }
}

function modelOfKeys(): string {
  const env = inheritedEnvironment();
  return REAL_MODELS.find(([name]) => (env[name] ?? '') !== '')?.[1] ?? SCRIPTED;
}

function answerOf(run: Pick<DemoRun, 'printer' | 'signal'>, options: DemoOptions): DemoRun['answer'] {
  return async ({ shown }) => {
    const preview = oneLine(String(shown['preview']), 200);
    run.printer.event('approval', `the agent may ${String(shown['tool'])}? ${preview}`, 'yellow');
    if (!options.interactive) {
      await delay(ANSWER_AFTER_MS, undefined, { signal: run.signal });
      return 'allow';
    }
    const answer = await confirm({ message: `Allow ${String(shown['tool'])}?`, signal: run.signal });
    if (isCancel(answer)) throw new LonghaulError('cancelled', 'interrupted');
    return answer ? 'allow' : 'deny';
  };
}
