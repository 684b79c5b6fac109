import sys

from pipelines.gan_augmentation import gan_augmentation

if __name__ == "__main__":
    gan_augmentation()
sys.modules[__name__] = gan_augmentation
