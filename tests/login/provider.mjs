// A certified OpenID provider, with users and a browser, for the tests of logins.
//
//   node provider.mjs                           on loopback; the first line on stdout is its issuer
//   node provider.mjs ISSUER CERTIFICATE KEY    at https://ADDRESS:PORT
//
// Then one JSON command a line on stdin, one JSON answer a line on stdout:
//
//   {"do": "browse", "url": U, "account": A}                  a person logs in; {"url": where the browser ends}
//   {"do": "refuse", "url": U}                                a person goes back instead; the same
//   {"do": "activate", "url": U, "code": C, "account": A}     a person types a device code
//   {"do": "rotate"}                                          new keys, under new names
//   {"do": "thick", "is": true}                               claims stand in the ID token, or at the userinfo endpoint
//   {"do": "groups", "account": A, "groups": [G]}             what the groups claim of this account says from now on
//
// An account's name is its subject; `…-unverified` has an address that is not verified.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createInterface } from 'node:readline';

console.info = console.error;   // stdout is for answers
const { Provider } = await import(process.env.OIDC_PROVIDER ?? 'oidc-provider');

let handle;
let thick = false;
const groups = new Map();
const listener = (request, response) => handle(request, response);
const [at, certificate, key] = process.argv.slice(2);
const server = at
  ? createSecureServer({ cert: readFileSync(certificate), key: readFileSync(key) }, listener)
  : createServer(listener);
const { hostname, port } = new URL(at ?? 'http://127.0.0.1:0');
await new Promise((done) => server.listen(Number(port), hostname, done));
const issuer = at ?? `http://127.0.0.1:${server.address().port}`;

function keys() {
  return [
    ['RS256', 'rsa', { modulusLength: 2048 }],
    ['ES256', 'ec', { namedCurve: 'P-256' }],
    ['EdDSA', 'ed25519', {}],
  ].map(([alg, type, options]) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    kid: randomUUID(), use: 'sig', alg,
  }));
}

function client(name, more) {
  return {
    client_id: name,
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback'],
    grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
    ...more,
  };
}

function begin(jwks) {
  const provider = new Provider(issuer, {
    jwks: { keys: jwks },
    clients: [
      client('postern', { client_secret: 'a secret: 100% & more' }),
      client('postern-post', { client_secret: 'secret', token_endpoint_auth_method: 'client_secret_post' }),
      client('postern-ec', { token_endpoint_auth_method: 'none', id_token_signed_response_alg: 'ES256' }),
      client('postern-ed', { token_endpoint_auth_method: 'none', id_token_signed_response_alg: 'EdDSA' }),
    ],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA', 'HS256'] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username'], groups: ['groups'] },
    conformIdTokenClaims: !thick,
    features: { deviceFlow: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id}@example.com`,
        email_verified: !id.endsWith('-unverified'),
        preferred_username: id,
        groups: groups.get(id) ?? ['sre', 'dev'],
      }),
    }),
  });
  handle = provider.callback();
}

// A browser with cookies that fills in the only form of each page and stops at the loopback redirect.
async function walk(url, fill, cookies = {}) {
  let [method, body] = ['GET', undefined];
  for (let steps = 0; steps < 30; steps += 1) {
    const answer = await fetch(url, {
      method, body, redirect: 'manual',
      headers: { cookie: Object.entries(cookies).map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value === '') delete cookies[name]; else cookies[name] = value;
    }
    const location = answer.headers.get('location');
    if (location) {
      url = new URL(location, url).href;
      if (!url.startsWith(issuer)) return { url };
      [method, body] = ['GET', undefined];
      continue;
    }
    const page = await answer.text();
    const form = /<form[^>]*action="([^"]*)"[^>]*>([\s\S]*?)<\/form>/.exec(page);
    if (!form) return { url, page };
    const fields = new URLSearchParams();
    for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
      const part = (name) => new RegExp(`${name}="([^"]*)"`).exec(input)?.[1];
      if (part('name')) fields.set(part('name'), fill[part('name')] ?? part('value') ?? '');
    }
    if (fill.abort) {
      const abort = /href="([^"]*\/abort)"/.exec(page);
      if (abort) { [url, method, body] = [new URL(abort[1], url).href, 'GET', undefined]; continue; }
    }
    [url, method, body] = [new URL(form[1], url).href, 'POST', fields];
  }
  throw new Error(`no end: ${url}`);
}

let jwks = keys();
begin(jwks);
console.log(issuer);

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer = {};
  try {
    switch (command.do) {
      case 'browse':
        answer = await walk(command.url, { login: command.account, password: 'any' });
        break;
      case 'refuse':
        answer = await walk(command.url, { abort: true });
        break;
      case 'activate':
        answer = await walk(command.url, { user_code: command.code, login: command.account, password: 'any' });
        break;
      case 'rotate':
        jwks = keys();
        begin(jwks);
        break;
      case 'thick':
        thick = command.is;
        begin(jwks);
        break;
      case 'groups':
        groups.set(command.account, command.groups);
        break;
      default:
        throw new Error(`no such command: ${line}`);
    }
  } catch (error) {
    answer = { error: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
process.exit(0);
