"""Vocabulary of money and machines: finance, autos, technology; `grammar.read_tables` explains the format."""

TABLE = """\
finance/markets
who: trader, fund manager, Wall Street analyst, chief economist, hedge fund founder, short seller
names: Dow Jones, Nasdaq, S&P 500, Goldman Sachs, Federal Reserve, New York Stock Exchange, BlackRock, Nikkei,
Berkshire Hathaway, Morgan Stanley, Treasury, FTSE
things: stocks, bonds, dividends, earnings reports, bull runs, selloffs, index funds, futures, yields, rate cuts,
recessions, IPOs, gold prices, price targets
acts: hits an all-time high, bets against tech shares, cuts interest rates again, !downgrades a chipmaker, !sees a
correction coming, closes up 200 points, raises its outlook, !dumps a $2 billion stake
how: buy your first share, read a balance sheet, diversify a portfolio, ride out a crash, pick a broker, invest $1000

finance/personalfinance
who: credit counselor, saver, bargain hunter, money coach, cardholder, debt adviser
names: Equifax, FICO, Visa, Mint, Capital One, American Express, Consumer Reports, Credit Karma, NerdWallet, Discover,
Experian, Mastercard
things: credit scores, budgets, overdrafts, savings accounts, coupons, emergency funds, credit cards, piggy banks,
late fees, impulse buys, subscriptions, cash-back offers, monthly bills, money blunders
acts: !cancels every subscription, digs out of $30000 of card balances, saves half a paycheck, freezes a stolen card,
lives on one income, doubles a rainy-day fund, !quits shopping for a year, !finds hidden bank charges
how: stick to a budget, raise your credit score, cut grocery spending, teach kids about money, negotiate a bill, stop
living paycheck to paycheck

finance/taxes
who: tax preparer, accountant, IRS commissioner, auditor, small filer, estate attorney
names: IRS, TurboTax, H&R Block, Form 1040, Medicare, Cayman Islands, Tax Foundation, Panama Papers, Social Security,
Internal Revenue Code, Treasury Department, Intuit
things: deductions, refunds, audits, write-offs, brackets, tax credits, loopholes, W-2s, offshore accounts, capital
gains, withholdings, receipts, filing deadlines, inheritances
acts: !hides income offshore, gets a surprise refund, files for an extension, !owes $14000 in back payments,
simplifies a form, claims a home office, !goes to jail for evasion, raises the standard deduction
how: file for free, itemize, avoid an audit, adjust your withholding, find a lost refund, deduct a donation

finance/retirement
who: retiree, pension trustee, financial planner, baby boomer, annuity salesman, early retiree
names: Vanguard, Fidelity, AARP, Social Security, Roth IRA, Charles Schwab, CalPERS, Florida, Medicare, TIAA, The
Villages, Teamsters
things: 401(k)s, pensions, nest eggs, annuities, IRAs, benefits checks, catch-up contributions, withdrawal rates,
golden years, employer matches, required distributions, rollovers, part-time gigs, cost-of-living raises
acts: stops working at 42, !delays benefits until 70, !outlives her savings, !loses a promised pension, moves to
Portugal on $2000 a month, goes back to work at 75, maxes out a workplace plan, downsizes after 65
how: retire early, claim benefits wisely, make a nest egg last, save in your fifties, roll over an old plan, plan for
nursing care

finance/realestate
who: realtor, home buyer, landlord, mortgage broker, house flipper, tenant
names: Zillow, Redfin, Fannie Mae, Manhattan, Silicon Valley, WeWork, Malibu, Airbnb, Freddie Mac, Century 21,
Brooklyn Heights, Aspen
things: mortgages, open houses, bidding wars, down payments, foreclosures, rents, condos, penthouses, starter homes,
listings, closing costs, evictions, appraisals, fixer-uppers
acts: sells a mansion for $90 million, pays $100000 over asking, !evicts a family of six, flips a bungalow, lists a
Victorian with a ghost, locks in a 3 percent loan, splits a duplex, waives the inspection
how: stage a house, haggle over a closing, buy with little down, get a lease approved, spot a bad foundation,
refinance a loan

finance/retail
who: store manager, cashier, online shopper, toy buyer, warehouse picker, chief merchandiser
names: Walmart, Target, Amazon, Costco, Macy's, Best Buy, Sears, Kroger, Etsy, Alibaba, Home Depot, Toys R Us
things: Black Friday deals, gift cards, shopping malls, store closures, delivery vans, markdowns, checkout lines,
returns, holiday sales, doorbusters, barcodes, grocery aisles, fulfillment centers, price matches
acts: opens at midnight on Thanksgiving, !files for bankruptcy, !shuts 96 locations, offers one-day shipping, !recalls
a crib, hires 100000 seasonal helpers, pays off layaway for strangers, !scraps self-checkout
how: score a bargain, spot a fake review, return a gift, compare unit prices, shop on Cyber Monday, avoid crowds at
the mall

finance/careers
who: recruiter, job seeker, hiring manager, remote worker, union organizer, career changer
names: LinkedIn, Labor Department, General Motors, Indeed, McKinsey, Glassdoor, United Auto Workers, Google, Upwork,
Deloitte, Starbucks, Monster
things: resumes, interviews, layoffs, promotions, salaries, cover letters, internships, pay gaps, payrolls, side
hustles, workplaces, bosses, unemployment claims, job offers
acts: !quits by singing a song, lands a dream position at 60, !lays off 1400 employees, asks for a raise, adopts a
four-day week, adds 128000 jobs, joins a picket line, !gets fired over an email
how: ace an interview, write a resume, ask for more pay, deal with a toxic boss, resign gracefully, switch industries

finance/crypto
who: bitcoin miner, blockchain developer, crypto exchange founder, token investor, fintech regulator, early adopter
names: Bitcoin, Ethereum, Coinbase, Libra, Dogecoin, Binance, Square, SEC, Mt. Gox, Ripple, Kraken, Litecoin
things: digital wallets, tokens, private keys, mining rigs, smart contracts, coin offerings, ledgers, altcoins,
stablecoins, pump-and-dump schemes, blockchains, hash rates, decentralized apps, cold storages
acts: !forgets the password to a fortune, !plunges 12 percent overnight, !bans private coins, mines in an abandoned
power plant, !loses $190 million in a hack, accepts virtual currency for pizza, forks the network, predicts $100000 a
coin
how: set up a wallet, store keys offline, spot a coin scam, mine at home, report gains, explain a distributed ledger

finance/energy
who: oil executive, shale driller, wind farm engineer, coal miner, pipeline inspector, nuclear plant operator
names: ExxonMobil, OPEC, Saudi Aramco, Permian Basin, Chevron, Keystone, PG&E, BP, Appalachia, North Sea, Chernobyl,
Fukushima
things: barrels, rigs, refineries, solar farms, turbines, pipelines, gas prices, fracking wells, reactors, power
grids, tankers, oil spills, coal plants, fuel rods
acts: !strikes crude off Guyana, !shuts down a reactor, !cuts output by a million barrels, !leaks 380000 gallons, goes
public in Riyadh, !cuts electricity to millions, erects the tallest windmill, !caps a well
how: lower a heating bill, install rooftop panels, save at the pump, insulate an attic, pick an electricity supplier,
read a smart meter

autos/sportscars
who: test driver, supercar collector, chief designer, track-day instructor, tuner, auctioneer
names: Porsche 911, Chevrolet Corvette, Lamborghini, Ford Mustang, Bugatti, Ferrari, McLaren, Dodge Challenger, Aston
Martin, Nissan GT-R, BMW M3, Nurburgring
things: V8 engines, turbochargers, spoilers, horsepower wars, manual gearboxes, zero-to-60 times, coupes, racing
stripes, exhaust notes, carbon brakes, top speeds, roadsters, mid-engine layouts, launch controls
acts: tops 300 mph, !wrecks a brand-new supercar, unveils a 760-hp coupe, laps the ring in under seven minutes,
revives a legendary badge, drifts around a volcano, sells out in an hour, hides a convertible for decades
how: heel-and-toe, drive on a racetrack, insure an exotic, tune an engine, launch without wheelspin, store a
convertible

autos/electriccars
who: battery engineer, EV owner, charging network boss, plug-in convert, autopilot developer, startup founder
names: Tesla, Lucid Motors, Nissan Leaf, Rivian, Chevy Bolt, Model 3, Volkswagen ID.3, Ford Mach-E, Porsche Taycan,
Toyota Prius, Audi e-tron, Electrify America
things: charging stations, batteries, range estimates, kilowatts, gigafactories, self-driving modes, hybrids, lithium
packs, plugs, over-the-air updates, zero-emission zones, regenerative brakes, crossovers, software glitches
acts: drives 400 miles on a single charge, unveils a steel pickup, !catches fire in a garage, swaps gasoline for
volts, opens a plant near Berlin, !sleeps behind the wheel, halves recharge times, outsells diesel rivals
how: charge at home, plan a long trip by EV, stretch battery life, claim the rebate, compare plug types, drive in cold
with less range

autos/trucks
who: pickup owner, long-haul trucker, off-roader, dealership boss, fleet manager, SUV designer
names: Ford F-150, Ram 1500, Chevy Silverado, Jeep Wrangler, Toyota Tacoma, GMC Sierra, Land Rover Defender,
Peterbilt, Ford Bronco, Honda Ridgeline, Subaru Outback, Freightliner
things: tow hitches, tailgates, payloads, lift kits, cargo beds, semis, diesel engines, four-by-fours, winches, crew
cabs, mud tires, trailers, bull bars, third-row seats
acts: hauls a 13000-pound load, crawls over boulders, !jackknifes on the interstate, !recalls 262000 vehicles over
tailgate latches, brings back a boxy off-roader, retires after 3 million miles, wins truck of the year, !rolls over in
a ditch
how: back up a trailer, pick towing mirrors, drive through mud, protect a cargo bed, pass a big rig, choose an SUV for
six

autos/motorcycles
who: biker, superbike racer, custom builder, scooter commuter, stunt rider, sidecar passenger
names: Harley-Davidson, Ducati, Yamaha, Sturgis, Triumph, Kawasaki Ninja, Indian Scout, Vespa, Royal Enfield, MotoGP,
BMW GS, Hells Angels
things: choppers, handlebars, leather jackets, throttles, wheelies, saddlebags, two-wheelers, dirt bikes, crash
helmets, twin engines, rallies, kickstands, dual-sport tires, cruisers
acts: jumps 15 buses, rides from Alaska to Argentina, launches an electric cruiser, !skids under a guardrail, builds a
bobber from scrap, lane-splits to work, joins a charity ride, pops a wheelie at 120 mph
how: lean into a curve, pick a first bike, pack panniers, ride in the rain, change a clutch cable, pass the license
course

autos/classiccars
who: restorer, barn-find hunter, vintage car judge, hot rodder, museum curator, muscle car fan
names: Ford Model T, Chevrolet Bel Air, Volkswagen Beetle, Pebble Beach Concours, Barrett-Jackson, Cadillac Eldorado,
Jaguar E-Type, Pontiac GTO, Mecum, Mercedes Gullwing, Plymouth Barracuda, Route 66
things: tailfins, carburetors, chrome bumpers, hot rods, whitewall tires, original parts, rusty hulks, auctions,
station wagons, muscle cars, hood ornaments, matching numbers, swap meets, wood panels
acts: finds a 1967 fastback in a barn, pays $3.4 million for a roadster, restores grandpa's sedan, !ends production
after 80 years, parades 400 hot rods, sells a movie getaway car, crosses the country in a Model A, !uncovers a rotten
frame
how: rebuild a carburetor, value an antique sedan, polish chrome, find rare parts, store a vintage car, spot a fake
matching-numbers car

autos/carmaintenance
who: mechanic, garage owner, driving instructor, tire dealer, body shop painter, used-car buyer
names: Jiffy Lube, AAA, Carfax, Michelin, AutoZone, Honda Civic, Goodyear, Pep Boys, Toyota Camry, Takata, Bosch,
NHTSA
things: oil changes, brake pads, flat tires, check-engine lights, dead batteries, spark plugs, wiper blades, airbags,
alignments, warranties, coolant leaks, dents, transmissions, inspection stickers
acts: keeps a sedan running past 500000 miles, !overcharges for a muffler, !issues a recall on inflators, fixes single
mothers' cars for nothing, !misses a cracked axle, !rolls back an odometer, tests 40 all-season tires, !finds a python
under the hood
how: jump-start an engine, change a flat, check your fluids, rotate the wheels, buy a used car, remove a dent

technology/smartphones
who: app developer, phone reviewer, gadget leaker, Apple executive, telecom chief, teenage texter
names: iPhone 11, Samsung Galaxy, Google Pixel, Huawei, Apple Watch, Verizon, AirPods, OnePlus, Motorola Razr,
Qualcomm, T-Mobile, Sprint
things: touchscreens, earbuds, 5G networks, selfies, foldable displays, ringtones, megapixels, emojis, headphone
jacks, chargers, notches, data plans, smartwatches, robocalls
acts: brings back the flip handset, !cracks a screen on day one, adds a third camera lens, !explodes in a pocket,
sells out preorders, unlocks with a face, !drops calls across the Midwest, swaps to a dumb phone
how: free up storage, make a battery last, block spam calls, take better night photos, recover deleted texts, back up
contacts

technology/cybersecurity
who: hacker, security researcher, chief information officer, phishing victim, encryption expert, ransomware negotiator
names: Equifax, Microsoft, NSA, Kaspersky, WikiLeaks, Facebook, Yahoo, Capital One, Fort Meade, Fancy Bear, LastPass,
CrowdStrike
things: passwords, data breaches, malware strains, phishing emails, firewalls, zero-day flaws, botnets, ransom notes,
VPNs, identity thefts, backdoors, spyware tools, two-factor codes, leaked files
acts: !steals 100 million records, finds a bug in a doorbell, !paralyzes a hospital network, sells logins on the dark
web, !patches a flaw in Windows, !extorts a school district, !cracks an encrypted laptop, !exposes a spy ring
how: make a strong password, spot a phishing email, remove a virus, protect your identity, secure a router, browse
anonymously

technology/ai
who: machine learning researcher, roboticist, data scientist, automation engineer, AI ethicist, computer vision expert
names: DeepMind, OpenAI, Boston Dynamics, IBM Watson, Alexa, Carnegie Mellon, AlphaGo, Nvidia, Siri, SoftBank, Waymo,
Turing Award
things: neural networks, algorithms, robots, chatbots, deepfakes, facial recognition systems, humanoids, training
sets, voice assistants, drones, exoskeletons, supercomputers, autonomous taxis, translation models
acts: beats humans at StarCraft, teaches a machine to do a backflip, !writes fake news by itself, diagnoses tumors
from scans, !misidentifies innocent people, paints a portrait, !replaces warehouse pickers, solves a Rubik's Cube
one-handed
how: train a model, talk to a chatbot, prepare for automation, spot a deepfake, learn Python, build a robot with kids

technology/socialmedia
who: influencer, content moderator, YouTuber, TikTok star, platform whistleblower, viral meme creator
names: Facebook, Twitter, Instagram, TikTok, Snapchat, YouTube, Reddit, Tumblr, LinkedIn, WhatsApp, Pinterest, Twitch
things: hashtags, likes, memes, trolls, followers, fake accounts, filters, news feeds, viral videos, political ads,
screen times, tweets, livestreams, comment sections
acts: hides like counts, !bans a conspiracy page, !deletes a cruel post, gains a million followers overnight,
!apologizes for an old tweet, !loses advertisers, starts an egg craze, !sues over a stolen meme
how: delete an account, go viral, limit screen time, report a troll, make money on videos, take a better selfie

technology/computers
who: chip designer, PC builder, programmer, IT administrator, laptop reviewer, supercomputer architect
names: Intel, Windows 10, MacBook Pro, AMD, Linux, Dell, Chromebook, Lenovo, Raspberry Pi, Google, Surface,
Hewlett-Packard
things: processors, keyboards, laptops, hard drives, graphics cards, operating systems, servers, monitors, qubits,
printers, USB sticks, spreadsheets, motherboards, cloud outages
acts: claims quantum supremacy, ditches the butterfly keyboard, ends support for an old version, squeezes 64 cores on
a die, boots in four seconds, open-sources a compiler, !overheats on a lap, revives a 1984 Macintosh
how: speed up an old PC, build a desktop, back up files, learn to code, switch to Linux, pick a monitor
"""
