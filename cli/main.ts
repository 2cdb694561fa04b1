#!/usr/bin/env node
import { Command, InvalidArgumentError } from 'commander';
import { OPERATOR_TEAM_ID } from '../contracts/key-scopes.ts';
import type { KeyOptions } from './commands/keys.ts';
import { readConfig } from './config.ts';
import { EXIT, messageOf, say } from './output.ts';

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65_535) throw new InvalidArgumentError('It must be 1 to 65535.');
  return value;
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 100_000)
    throw new InvalidArgumentError('It must be 1 to 100000.');
  return value;
}

function list(text: string): string[] {
  return text
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
}

// Commands are loaded when they run: `setup` and `--help` must not pay for the Temporal client.
const program = new Command('longhaul')
  .description('Durable agent orchestrator on Temporal')
  .showHelpAfterError('(see --help)')
  .exitOverride((error) => {
    process.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage);
  });

program
  .command('dev')
  .description('run the whole stack on this machine: Postgres, Temporal, api with gateway, egress broker, worker')
  .option('-d, --detach', 'return when it is ready; end it with `longhaul stop`', false)
  .option('-p, --port <port>', 'port of the api (default: 4680 or the next free one)', port)
  .addHelpText('after', '\nExample:\n  LONGHAUL_HOME=/tmp/try longhaul dev --detach')
  .action(async (options: { detach: boolean; port?: number }) => {
    const { dev } = await import('./commands/dev.ts');
    process.exitCode = await dev(readConfig(), { detach: options.detach, port: options.port });
  });

program
  .command('setup')
  .description('install what is missing: system packages, the Temporal server; does nothing when all is there')
  .action(async () => {
    const { setup } = await import('./commands/setup.ts');
    process.exitCode = await setup(readConfig());
  });

program
  .command('stop')
  .description('end the stack of this home; its data stays')
  .action(async () => {
    const { stop } = await import('./commands/stop.ts');
    process.exitCode = await stop(readConfig());
  });

program
  .command('status')
  .description('what runs in this home, and is it well')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { status } = await import('./commands/status.ts');
    process.exitCode = await status(readConfig(), options);
  });

program
  .command('trace <session>')
  .description('the call tree of a session: turns, model calls, tools, times and costs')
  .option('--json', 'print JSON, one document a page', false)
  .action(async (session: string, options: { json: boolean }) => {
    const { showTrace } = await import('./commands/trace.ts');
    process.exitCode = await showTrace(readConfig(), session, options);
  });

program
  .command('doctor')
  .description('check every prerequisite and say what to do about each problem')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { doctor } = await import('./commands/doctor.ts');
    process.exitCode = await doctor(readConfig(), options);
  });

program
  .command('demo')
  .description('show on a stack of its own, in under two minutes, what a session survives; every claim is checked')
  .option('-i, --interactive', 'answer the approval yourself', false)
  .option('-k, --keep', 'leave the stack running to look around', false)
  .option('-m, --model <id>', 'default: scripted (offline), or a real one when a key is set (ANTHROPIC_API_KEY, …)')
  .action(async (options: { interactive: boolean; keep: boolean; model?: string }) => {
    const { demo } = await import('./commands/demo.ts');
    process.exitCode = await demo(readConfig(), { ...options, model: options.model });
  });

program
  .command('e2b-server')
  .description('let programs written for E2B use sandboxes of this machine')
  .option('-p, --port <port>', 'port (default: LONGHAUL_E2B_PORT or 4690)', port)
  .option('--allow-internet', 'programs that say nothing of the network reach every public host')
  .action(async (options: { port?: number; allowInternet?: boolean }) => {
    const { e2bServer } = await import('./commands/e2b-server.ts');
    process.exitCode = await e2bServer(readConfig(), options);
  });

program
  .command('migrate')
  .description('bring the database of DATABASE_URL to the schema of this version')
  .action(async () => {
    const { migrateDatabase } = await import('./commands/migrate.ts');
    process.exitCode = await migrateDatabase(readConfig());
  });

const keys = program.command('keys').description('API keys in the database of DATABASE_URL, or of the running stack');

keys
  .command('create <name>')
  .description('mint an API key and print it: it cannot be shown again')
  .option('--user <id>', 'whom it stands for', 'admin')
  .option('--team <id>', 'the team of that user', OPERATOR_TEAM_ID)
  .option('--models <ids>', 'models it may call, with commas between them; an entry may end with *', list)
  .option('--parallel <calls>', 'model calls that may run at once', positive)
  .option('--budget <cents>', 'what all its model calls may cost together', positive)
  .option('--expires-in <days>', 'days until it ends by itself', positive)
  .option('--gateway-only', 'for model calls only, not for the API', false)
  .option('--unless-any', 'do nothing when a key exists already', false)
  .option('--output <file>', 'write it to a file only its owner can read, instead of printing it')
  .addHelpText('after', '\nExample:\n  longhaul keys create ci --user ci --models "claude-*" --gateway-only')
  .action(async (name: string, options: Omit<KeyOptions, 'name'>) => {
    const { createKey } = await import('./commands/keys.ts');
    process.exitCode = await createKey(readConfig(), { name, ...options });
  });

keys
  .command('list')
  .description('keys of a team, newest first')
  .option('--team <id>', 'the team', OPERATOR_TEAM_ID)
  .option('--all', 'revoked ones, too', false)
  .option('--json', 'print JSON', false)
  .action(async (options: { team: string; all: boolean; json: boolean }) => {
    const { listKeys } = await import('./commands/keys.ts');
    process.exitCode = await listKeys(readConfig(), options);
  });

keys
  .command('revoke <id>')
  .description('end a key for good; gateways follow within two seconds')
  .option('--team <id>', 'the team', OPERATOR_TEAM_ID)
  .action(async (id: string, options: { team: string }) => {
    const { revokeKey } = await import('./commands/keys.ts');
    process.exitCode = await revokeKey(readConfig(), { id, ...options });
  });

program
  .command('prices')
  .description('prices of models in the database of DATABASE_URL, or of the running stack')
  .command('import <file>')
  .description('set the prices of a LiteLLM price map (JSON); prices of models it does not name stay')
  .option('--team <id>', 'for this team only (default: for every team)')
  .addHelpText('after', '\nExample:\n  longhaul prices import model_prices_and_context_window.json')
  .action(async (file: string, options: { team?: string }) => {
    const { importPrices } = await import('./commands/prices.ts');
    process.exitCode = await importPrices(readConfig(), file, options);
  });

const vault = program.command('vault').description('master keys of the vault; secrets themselves go through the API');

vault
  .command('rotate-key')
  .description('bring every value under the first key of LONGHAUL_VAULT_KEY; may be run again after anything')
  .option('--json', 'print JSON', false)
  .addHelpText('after', '\nExample:\n  LONGHAUL_VAULT_KEY="$NEW_KEY,$OLD_KEY" longhaul vault rotate-key')
  .action(async (options: { json: boolean }) => {
    const { rotateVaultKey } = await import('./commands/vault.ts');
    process.exitCode = await rotateVaultKey(readConfig(), options);
  });

vault
  .command('keys')
  .description('which master keys, by their ids, guard how many values')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { showVaultKeys } = await import('./commands/vault.ts');
    process.exitCode = await showVaultKeys(readConfig(), options);
  });

program
  .command('gateway')
  .description('the gateway of model calls')
  .command('import-litellm <file>')
  .description('show what becomes of a LiteLLM config.yaml: what is taken, and what is ignored, key by key')
  .option('-o, --output <file>', 'write it in our own shape')
  .option('--json', 'print JSON', false)
  .addHelpText('after', '\nExample:\n  longhaul gateway import-litellm config.yaml --output gateway.yaml')
  .action(async (file: string, options: { output?: string; json: boolean }) => {
    const { importLitellm } = await import('./commands/import-litellm.ts');
    process.exitCode = await importLitellm(file, { output: options.output, json: options.json });
  });

const harness = program.command('harness').description('programs of harnesses: OpenCode, Claude Code, Codex, …');

harness
  .command('install [names...]')
  .description('install the pinned version of each (default: all that are missing); may be run again')
  .addHelpText('after', '\nExample:\n  longhaul harness install opencode codex')
  .action(async (names: string[]) => {
    const { installHarnesses } = await import('./commands/harness.ts');
    process.exitCode = await installHarnesses(names);
  });

harness
  .command('doctor')
  .description('what is installed, whether it starts, what it can do, and what to do next')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { harnessDoctor } = await import('./commands/harness.ts');
    process.exitCode = await harnessDoctor(options);
  });

try {
  await program.parseAsync();
} catch (error) {
  say(`longhaul: ${messageOf(error)}`);
  process.exitCode = EXIT.failed;
}
