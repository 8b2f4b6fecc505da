-- claim: may these jobs go on, or does another job hold their dedupe key?
--
-- KEYS  jobs dead seen:0 seen:1
-- ARGV  window in ms, then for each job: dedupe key, id
-- Returns  1 or 0 for each, in order: 1, the key is this job's now.
--
-- A key is held by the job that claimed it last, while that job waits (of a split one a part that is not dead), and for
-- `window` after its last claim; by one that is dead only if somebody has had it, and it can't claim: whoever asks for
-- that has lost its lease. Claiming again renews it. A part goes on by the claim of its whole, and asks nothing. A job
-- that lies in `jobs` gets the key into its json, so that whoever buries it can give the key back.
-- May run twice. O(1) for a job that was never touched, O(bytes) for another.
local jobs, dead, seen_a, seen_b = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
call('HDEL', jobs, '')
for _, key in ipairs({jobs, seen_a, seen_b}) do
  size_of('HLEN', key)
end
size_of('ZCARD', dead)
if refusal then
  return refusal
end
local now, window = now_ms(), tonumber(ARGV[1])
local newer, older = buckets_of(seen_a, seen_b, now, window)

local function has_been_had(id)
  local json = match(call('HGET', jobs, id) or '', '^[^\n]*')
  return find(json, '"reached":true', 1, true) ~= nil
end

local function is_held(key, id)
  local held = call('HGET', newer, key) or call('HGET', older, key)
  local since, holder = match(held or '', '^(%d+) (.*)$')
  if not holder or holder == id then
    return false
  end
  local is_dead = call('ZSCORE', dead, holder)
  if since + window > now then
    return not is_dead or has_been_had(holder)
  end
  local noted = call('HGET', jobs, holder .. '/-')
  return not is_dead and call('HEXISTS', jobs, holder) == 1
    and (not noted or has_living_parts(jobs, dead, holder, noted))
end

local function remember(key, id)
  local value = call('HGET', jobs, id)
  if not value then
    return
  end
  local deaths, first, json, bytes = parse(value)
  if not find(json, '"dedupe":', 1, true) then
    local rest = json == '{}' and '}' or ',' .. sub(json, 2)
    call('HSET', jobs, id, render(deaths, first, '{"dedupe":' .. cjson.encode(key) .. rest, bytes))
  end
end

local reply = {}
for i = 2, #ARGV, 2 do
  local key, id = ARGV[i], ARGV[i + 1]
  local is_mine = true
  if key ~= '' and not root_of(id) and not call('ZSCORE', dead, id) then
    is_mine = not is_held(key, id)
    if is_mine then
      call('HSET', newer, key, now .. ' ' .. id)
      remember(key, id)
    end
  end
  reply[#reply + 1] = is_mine and 1 or 0
end
return reply
