-- wrk's script: random requests out of a file, one target a line; what came of them as one JSON line.
-- Arguments: the file, the method, and for POST the path, the lines then being bodies.

local asked, count = {}, 0

function init(args)
  math.randomseed(tonumber(args[4]) or 1)
  for line in io.lines(args[1]) do
    count = count + 1
    if args[2] == "POST" then
      asked[count] = wrk.format("POST", args[3], nil, line)
    else
      asked[count] = wrk.format("GET", line)
    end
  end
end

function request()
  return asked[math.random(count)]
end

function done(summary, latency)
  local errors = summary.errors
  local shares = {}
  for _, share in ipairs({10, 25, 50, 75, 90, 95, 99, 99.5, 99.9}) do
    shares[#shares + 1] = string.format('"%g": %d', share, latency:percentile(share))
  end
  io.write(string.format(
    '\n{"requests": %d, "us": %d, "bytes": %d, "errors": %d, "kinds": "%d connect, %d read, %d write, %d status, %d timeout", "latencies": {%s}}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    table.concat(shares, ", ")))
end
