import type { GatewayFile, ModelDeployment, ModelRouteSpec } from '../../contracts/model-routes.ts';
import { fieldsOf, KeyReader, textOf } from './litellm-keys.ts';
import { deploymentOf } from './litellm-models.ts';
import { readSettings, type Settings } from './litellm-settings.ts';

/** What became of a LiteLLM `config.yaml`. */
export interface LitellmImport {
  file: GatewayFile;
  /** One line for each thing that was taken. */
  taken: string[];
  /** One line for each key that was not, with the reason. */
  ignored: string[];
  /** The variable that holds LiteLLM's master key; undefined when the file has none or holds it literally. */
  masterKeyVariable: string | undefined;
}

/** True for a parsed YAML file of LiteLLM's shape. */
export function isLitellmConfig(value: unknown): boolean {
  const fields = fieldsOf(value);
  return 'model_list' in fields || 'litellm_settings' in fields || 'router_settings' in fields;
}

/** Reads the part of LiteLLM's configuration that Longhaul has an equal for; says of every other key that it is ignored. */
export function importLitellm(value: unknown, variable: (name: string) => string | undefined): LitellmImport {
  const keys = new KeyReader(variable);
  const root = fieldsOf(value);
  const settings = readSettings(root, keys);
  const groups = readModels(root['model_list'], keys);
  for (const key of Object.keys(root)) {
    if (!['model_list', 'litellm_settings', 'router_settings', 'general_settings'].includes(key)) {
      keys.ignore(key, 'Longhaul has no equal for it');
    }
  }
  const routes = [...groups].map(([name, deployments]) => routeOf(name, deployments, settings));
  reportUnknownNames(settings, routes, keys);
  for (const [name, target] of Object.entries(settings.aliases))
    keys.take(`router_settings.model_group_alias.${name}`, `alias ${name} → ${target}`);
  return {
    file: { routes, aliases: settings.aliases, teams: {} },
    taken: keys.taken,
    ignored: keys.ignored,
    masterKeyVariable: settings.masterKeyVariable,
  };
}

function readModels(list: unknown, keys: KeyReader): Map<string, ModelDeployment[]> {
  const groups = new Map<string, ModelDeployment[]>();
  if (!Array.isArray(list)) return groups;
  for (const [index, entry] of list.entries()) {
    const at = `model_list[${index}]`;
    const fields = fieldsOf(entry);
    const name = textOf(fields['model_name']);
    if (name === undefined) {
      keys.ignore(at, 'it has no model_name');
      continue;
    }
    for (const key of Object.keys(fields)) {
      if (!['model_name', 'litellm_params', 'model_info'].includes(key))
        keys.ignore(`${at}.${key}`, 'Longhaul has no equal for it');
    }
    for (const { names, deployment } of deploymentOf(at, name, fields, keys)) {
      for (const each of names) groups.set(each, [...(groups.get(each) ?? []), deployment]);
      keys.take(at, `${names.join(', ')} → ${deployment.provider} ${deployment.model}`);
    }
  }
  return groups;
}

function routeOf(name: string, deployments: ModelDeployment[], settings: Settings): ModelRouteSpec {
  const fallbacks = {
    ...pick('default', settings.fallbacks[name] ?? settings.defaultFallbacks),
    ...pick('context_window', settings.contextWindowFallbacks[name]),
    ...pick('content_policy', settings.contentPolicyFallbacks[name]),
  };
  return {
    name,
    deployments: deployments.map((deployment) => withTimeouts(deployment, settings)),
    ...(settings.strategy === undefined ? {} : { strategy: settings.strategy }),
    ...(settings.retries === undefined ? {} : { retries: settings.retries }),
    ...(settings.allowedFails === undefined ? {} : { allowed_fails: settings.allowedFails }),
    ...(settings.cooldownMs === undefined ? {} : { cooldown_ms: settings.cooldownMs }),
    ...(Object.keys(fallbacks).length === 0 ? {} : { fallbacks }),
  };
}

function pick(reason: string, names: string[] | undefined): Record<string, string[]> {
  return names === undefined || names.length === 0 ? {} : { [reason]: names };
}

function withTimeouts(deployment: ModelDeployment, settings: Settings): ModelDeployment {
  return {
    ...(settings.timeoutMs === undefined ? {} : { timeout_ms: settings.timeoutMs }),
    ...(settings.streamTimeoutMs === undefined ? {} : { first_byte_timeout_ms: settings.streamTimeoutMs }),
    ...deployment,
  };
}

/** A chain that starts or ends nowhere is a slip of the pen that would show only in an outage. */
function reportUnknownNames(settings: Settings, routes: readonly ModelRouteSpec[], keys: KeyReader): void {
  const isKnown = (name: string): boolean =>
    Object.hasOwn(settings.aliases, name) ||
    routes.some((route) => (route.name.endsWith('*') ? name.startsWith(route.name.slice(0, -1)) : route.name === name));
  const chains = [
    ['fallbacks', settings.fallbacks],
    ['context_window_fallbacks', settings.contextWindowFallbacks],
    ['content_policy_fallbacks', settings.contentPolicyFallbacks],
  ] as const;
  for (const [what, lists] of chains) {
    for (const [from, targets] of Object.entries(lists)) {
      if (!routes.some(({ name }) => name === from))
        keys.ignore(`${what}.${from}`, 'model_list has no such model_name');
      else keys.take(`${what}.${from}`, `${from} falls back to ${targets.join(', ')}`);
      for (const target of targets) if (!isKnown(target)) keys.ignore(`${what}.${from}: ${target}`, 'no such model');
    }
  }
}
