"""Ordinary nouns for things that the drawn world never contains; false of every scene.

They teach the text tower that most words are not in the picture.
"""

DISTRACTORS: tuple[str, ...] = tuple(
    """
    accordion airplane alligator ambulance anchor ankle antelope aquarium axe backpack bacon
    badger bagel banjo basket bathtub battery beaver bed bench bicycle binoculars blanket blender
    bottle bowl bracelet brain bridge broom bucket buffalo bulldozer bus calculator camel camera
    candle cannon canoe carrot castle cauldron ceiling cello chain chair cheese chess
    chimpanzee church cigar coat coconut coffee coin comb compass computer corn cow crab crane
    crocodile crown crayon cup curtain deer desk diamond dinosaur dog doll dolphin donkey
    dragon dress drill drum duck eagle earring elbow elephant elevator engine envelope eraser fan
    faucet feather fence ferry finger fireplace flute fork fountain fox frog fridge giraffe
    glacier glasses globe glove goat gorilla grape guitar hammer hamster harbor harp hat hedgehog
    helicopter helmet hippo honey horse hospital igloo iron jacket jaguar jar jeep jellyfish
    kangaroo kettle kite knife knight koala ladder lamp lantern laptop lemon lighthouse lion
    lizard llama lobster magnet mailbox map mask microphone microscope mirror mitten monkey moon
    motorcycle mountain mouse museum necklace needle newspaper octopus onion orchestra ostrich
    oven owl ox paintbrush panda parachute parrot peacock peanut pelican pencil penguin piano
    pillow pineapple pizza plow potato printer pumpkin puppet purse pyramid rabbit
    raccoon radio razor refrigerator rhinoceros robot rocket saddle sailor salad sandwich
    saw saxophone scarf scissors scooter scorpion shark sheep shelf shoe shovel skateboard
    skeleton skull sledge snail snake soap sock sofa spider spoon squirrel stadium statue
    stethoscope stove strawberry submarine suitcase sword syringe table tank teapot telephone
    telescope television tent tiger toaster toilet tomato toothbrush tractor train trombone truck
    trumpet typewriter vacuum vase violin volcano vulture wagon wallet walrus watermelon whale
    wheelbarrow whistle windmill wolf wrench yacht zebra zipper
    """.split()
)
